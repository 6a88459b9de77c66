#!/usr/bin/env python3
"""Ship what recipe.sh made: the seed that answers best on the calibration part, in all forms, its samples and its card.

python scripts/embedded/publish.py --data DATA --out runs/embedded
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import model_card
import numpy as np
from pretrain import STAGES
from training_plot import save_training_curves
from twins import find_twins, twin_section

from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.data.folders import ImageFolder, load_split
from pi_dynn.data.layouts import open_data
from pi_dynn.deploy.builder import build_bundle
from pi_dynn.deploy.export import calibration_images
from pi_dynn.deploy.litert import litert_bundle
from pi_dynn.deploy.onnx import onnx_bundle, without_full_depth
from pi_dynn.evaluate.outputs import collect_outputs, evaluate
from pi_dynn.evaluate.thresholds import rejection_of
from pi_dynn.files import write_text
from pi_dynn.models.card import read_card
from pi_dynn.models.checkpoint import load_checkpoint
from pi_dynn.models.registry import create_model
from pi_dynn.runtime.archive import EMBEDDED, SHIPPED, form_file
from pi_dynn.runtime.bundle import Bundle, load_bundle
from pi_dynn.runtime.session import Session
from pi_dynn.text import mega, percent
from pi_dynn.train.records import TrainResult

CURVES = "training_curves.svg"
DATA_NOTE = """Task and figures: UC Merced Land Use (Yang and Newsam, 2010), made from USGS National Map imagery in
the public domain, 80 images of each of 21 classes. Pretraining also on AID (30 classes) and RSSCN7 (7 classes), Google
Earth imagery, on Tiny ImageNet (200 classes of photographs) and CIFAR-10: used for training only, none of it is
shipped. The sample photographs are UC Merced images."""
RECIPE_NOTE = """The network starts from the bundle that was shipped before it, whose recipe is in this file's history.
Teachers see the very same crop, turn and flip as the student: EfficientNet-Lite0 with ImageNet weights (Apache-2.0),
whose leading feature components every head regresses, and whose classes it answers; in the 128 px stages also the
shipped `lite0`, of UC Merced's classes, a share of the batches blended. No teacher learned from an image of the
held-out parts. AdamW, cosine schedule by views, moving average of the weights. Then the network is frozen, and
`pi-dynn train exits` learns heads and gates after every block and keeps the exits and the one threshold that are
cheapest on eight turned and flipped views of the calibration images without losing accuracy there. The seeds differ
from the last stage on; the one shipped answers most of these views right."""
REJECTED = 0.05  # of images like those it knows, at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="has ucm, one folder a class")
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"), help="what recipe.sh was given")
    parser.add_argument("--split", type=Path, default=Path("calibration/ucm_split.json"))
    parser.add_argument("--assets", type=Path, default=Path("pi_dynn/assets"))
    parser.add_argument(
        "--record", type=Path, default=Path("calibration/ucm_risk.json"), help="thresholds with a promise"
    )
    arguments = parser.parse_args()
    parts = load_split(arguments.split, open_data(arguments.data / "ucm").data)
    folders = {int(folder.name.removeprefix("seed_")): folder for folder in sorted(arguments.out.glob("seed_*"))}
    accuracy = {seed: calibration_accuracy(folder, parts["calibrate"]) for seed, folder in folders.items()}
    print({seed: percent(value, 2) for seed, value in accuracy.items()}, "of the calibration part's views")
    best = max(accuracy, key=lambda seed: accuracy[seed])
    log = [*stages_log(arguments.out / "log.jsonl"), *stages_log(folders[best] / "log.jsonl")]
    publish(folders, best, parts, log, arguments.assets)
    command = ("calibrate", arguments.data / "ucm", "--split", arguments.split, "--rule", "risk", "--epsilon", 2)
    bundle = arguments.assets / SHIPPED[EMBEDDED]
    everything = (*command, "--bundle", bundle, "--output", arguments.record)
    subprocess.run([sys.executable, "-m", "pi_dynn.cli", *map(str, everything)], check=True)


def calibration_accuracy(folder: Path, data: ImageFolder) -> float:
    """The share of the calibration part's eight views that a seed's bundle answers right, with exits."""
    session = Session(load_bundle(folder / "exits/bundle.pt"))
    outputs = collect_outputs(session, data, all_views=True)
    exits = leave_at(outputs.scores, session.manifest.thresholds)
    return float(outputs.right[exits, np.arange(len(exits))].mean())


def stages_log(path: Path) -> list[dict]:
    """The rows of a log of pretrain.py."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def publish(
    folders: Mapping[int, Path], seed: int, parts: dict[str, ImageFolder], log: Sequence[Mapping], assets: Path
) -> None:
    """Write the bundle of `seed` in all its forms, the samples, the curves and the card into `assets`."""
    results = {
        number: TrainResult.from_dict(json.loads((folder / "exits/result.json").read_text()))
        for number, folder in folders.items()
    }
    shipped = results[seed]
    weights = folders[seed] / "exits" / Path(shipped.weights).name
    bundle = rejecting(load_bundle(folders[seed] / "exits/bundle.pt"), parts)
    bundle.save(assets / SHIPPED[EMBEDDED])
    without_full_depth(onnx_bundle(bundle)).save(assets / form_file(SHIPPED[EMBEDDED], "onnx"))
    images = calibration_images(bundle.manifest.preprocess, parts["train"])
    litert_bundle(bundle, images).save(assets / form_file(SHIPPED[EMBEDDED], "litert"))
    card = read_card(weights)
    model = create_model(card.model, **card.arguments)
    load_checkpoint(model, weights)
    floats = build_bundle(
        model.eval(),
        exits=shipped.exit_blocks,
        thresholds=bundle.manifest.thresholds,
        precision="fp32",
        labels=bundle.manifest.labels,
        preprocess=card.preprocess,
    )
    everything = build_bundle(
        model,
        exits=model.exit_blocks,
        thresholds=[1.0] * len(model.exit_blocks),
        precision="fp32",
        labels=bundle.manifest.labels,
        preprocess=card.preprocess,
    )
    sessions = {"int8": Session(bundle), "fp32": Session(floats)}
    copy_samples(sessions["int8"], parts["test"], assets / "samples")
    right = collect_outputs(Session(everything), parts["test"]).right.mean(1).tolist()
    depths = dict(zip([*model.exit_blocks, model.depth - 1], right, strict=True))
    save_training_curves(log, {stage.name: stage.batch_size for stage in STAGES}, assets / CURVES)
    text = card_text(bundle, sessions, parts, results, depths, log)
    write_text(assets / "MODEL_CARD.md", text)
    print(text)


def rejecting(bundle: Bundle, parts: dict[str, ImageFolder]) -> Bundle:
    """The bundle that says of images unlike all it knows that they are none of its classes."""
    session = Session(bundle)
    known, others = (collect_outputs(session, parts[name]) for name in ("train", "calibrate"))
    return bundle.with_manifest(
        rejection=rejection_of(known, others, bundle.manifest.thresholds, bundle.manifest.labels, REJECTED)
    )


def card_text(
    bundle: Bundle,
    sessions: dict[str, Session],
    parts: dict[str, ImageFolder],
    results: dict[int, TrainResult],
    depths: dict[int, float],
    log: Sequence[Mapping],
) -> str:
    """The model card; both precisions are judged on the test part."""
    manifest, test = bundle.manifest, parts["test"]
    outputs = {precision: collect_outputs(session, test) for precision, session in sessions.items()}
    judged = {
        precision: evaluate(session, test, outputs[precision], manifest.thresholds)
        for precision, session in sessions.items()
    }
    same = (outputs["int8"].logits[-1].argmax(-1) == outputs["fp32"].logits[-1].argmax(-1)).mean()
    int8 = judged["int8"]
    return model_card.CARD.format(
        name=SHIPPED[EMBEDDED],
        summary="What `pi-dynn classify` runs when no other bundle is given: aerial scenes, 21 land-use classes.",
        network=f"{manifest.model}, exits after blocks {', '.join(str(block) for block in manifest.exit_blocks)}",
        classes=", ".join(manifest.labels),
        size=manifest.preprocess.size,
        megabytes=len(bundle.data) / 1e6,
        sha256=bundle.sha256,
        data=DATA_NOTE,
        recipe=RECIPE_NOTE,
        stages=model_card.stage_rows(STAGES, log),
        curves=CURVES,
        images=int8.images,
        accuracy=model_card.accuracy_rows(judged),
        exits=model_card.exit_rows(int8),
        mean_macs=mega(int8.mean_macs),
        full_macs=mega(int8.full_depth_macs),
        saved=percent(1 - int8.mean_macs / int8.full_depth_macs),
        agreement=percent(float(same)),
        promised=percent(REJECTED, 0),
        rejected=percent(int8.rejected),
        twins=twin_section(find_twins(test, parts["train"]), sessions["int8"], test),
        seeds=model_card.seed_rows({seed: result.evaluation for seed, result in results.items()}),
        depths=model_card.depth_rows(depths),
        command="scripts/embedded/recipe.sh DATA runs/embedded && python scripts/embedded/publish.py --data DATA",
    )


def copy_samples(session: Session, test: ImageFolder, folder: Path, per_exit: int = 3) -> None:
    """A few test images for each exit, of as many classes as possible, under their class name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    classes_of: dict[int, set[int]] = {}
    for path, label, answer in zip(test.paths, test.labels, session.classify_many(test.paths), strict=True):
        classes = classes_of.setdefault(answer.exit_index, set())
        if len(classes) < per_exit and not any(label in other for other in classes_of.values()):
            classes.add(label)
            shutil.copy(path, folder / path.name)


if __name__ == "__main__":
    main()
