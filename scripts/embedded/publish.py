#!/usr/bin/env python3
"""Ship what recipe.sh made: the best seed on the calibration part, in all forms, its samples and its card.

python scripts/embedded/publish.py --data DATA --out runs/embedded
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import model_card
import numpy as np
from stages import STAGES
from torch import nn
from training_plot import save_training_curves
from twins import find_twins, twin_section

from pi_dynn.calibrate.scores import exit_scores
from pi_dynn.calibrate.temperature import fit_temperatures
from pi_dynn.calibrate.validate import tightened
from pi_dynn.data.folders import ImageFolder, load_split
from pi_dynn.data.layouts import open_data
from pi_dynn.deploy.builder import build_bundle
from pi_dynn.deploy.calibrated import calibrated_bundle
from pi_dynn.deploy.export import calibration_images
from pi_dynn.deploy.litert import litert_bundle
from pi_dynn.deploy.onnx import onnx_bundle, without_full_depth
from pi_dynn.evaluate.outputs import collect_outputs, evaluate
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.evaluate.thresholds import rejection_of
from pi_dynn.files import write_text
from pi_dynn.models.card import Card, read_card
from pi_dynn.models.checkpoint import load_checkpoint
from pi_dynn.models.macs import count_macs
from pi_dynn.models.registry import create_model
from pi_dynn.records import NEVER
from pi_dynn.runtime.archive import EMBEDDED, SHIPPED, form_file
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.forms import LITERT, ONNX
from pi_dynn.runtime.session import Session
from pi_dynn.text import mega, percent
from pi_dynn.train.learn.finish import LEAST_ANSWERED, TIGHTER, Leaving, choose_leaving

CURVES = "training_curves.svg"
DATA_NOTE = """Task and figures: UC Merced Land Use (Yang and Newsam, 2010), made from USGS National Map imagery in
the public domain, 80 images of each of 21 classes. Pretraining also on AID (30 classes) and RSSCN7 (7 classes), Google
Earth imagery, and on Tiny ImageNet (200 classes of photographs): used for training only, none of it is shipped. The
sample photographs are UC Merced images."""
RECIPE_NOTE = """The network starts from the one shipped before it: the line at the end makes it where that one
is still shipped. That one was version 0.1's, trained further with 4.2 million views of `plain_64`, 0.18 of
`aerial_plain_128` and 0.03 of `task_plain_128`; its card, with figures and curves, is in this file's history.
Teachers see the very same crop, turn and flip as the student: EfficientNet-Lite0 with ImageNet weights (Apache-2.0),
whose leading feature components every head regresses, and whose classes it answers; in the 128 px stages also the
shipped `lite0`, of UC Merced's classes, a share of the batches blended. Pictures are cropped, but whole in the last
stage, as they are classified. No teacher learned from an image of the held-out parts. AdamW, cosine schedule by views,
moving average of the weights. Then the network is frozen, and `pi-dynn train exits` learns heads and gates after every
block. Exits are chosen as `pi-dynn learn` does: they save most on eight turned and flipped views of the calibration
images, spoil at most 0.1 % of the answers there, and each answers at least 5 %. Images leave by the gates or by the
largest probability, whichever saves more; then thresholds are made as strict as 47 % saved on these views allow, up to
ten times as close to 1. The seeds differ from the last stage on; the one is shipped that answers these views best."""
MADE_BY = """PRETRAIN=0 AERIAL=0.12 TASK=0.02 VIEWS=2 scripts/embedded/recipe.sh DATA \
&& python scripts/embedded/publish.py --data DATA"""
REJECTED = 0.05  # of images like those it knows, at most
LEAST_SAVED = 0.47  # on the calibration part's views, to have 45 % on others
SCORES = ("gate", "max-probability")
Log = Sequence[Mapping]


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
    seeds = {seed: made(folder, parts["calibrate"]) for seed, folder in folders.items()}
    for seed, one in seeds.items():
        print(f"seed {seed}: {percent(one.accuracy, 2)} of the calibration part's views, {percent(one.saved)} saved")
    best = max(seeds, key=lambda seed: (seeds[seed].accuracy, seeds[seed].saved))
    log = [*stages_log(arguments.out / "log.jsonl"), *stages_log(folders[best] / "log.jsonl")]
    publish(seeds, best, parts, log, arguments.assets)
    command = ("calibrate", arguments.data / "ucm", "--split", arguments.split, "--rule", "risk", "--epsilon", 2)
    bundle = arguments.assets / SHIPPED[EMBEDDED]
    everything = (*command, "--bundle", bundle, "--output", arguments.record)
    subprocess.run([sys.executable, "-m", "pi_dynn.cli", *map(str, everything)], check=True)


@dataclass(frozen=True)
class Seed:
    """A seed's network with all its trained exits, its bundle, and what that answers and saves on the views."""

    model: nn.Module
    card: Card
    bundle: Bundle
    accuracy: float
    saved: float


def made(folder: Path, data: ImageFolder) -> Seed:
    """The seed trained in `folder`, its exits and thresholds chosen on eight views of `data`.

    Images leave by the learned gates or by the largest probability, whichever saves more when both are chosen as
    `learn` does it. What it saves beyond LEAST_SAVED is given for stricter thresholds.
    """
    weights = folder / "exits/exits.safetensors"
    card = read_card(weights)
    model = create_model(card.model, **card.arguments).eval()
    load_checkpoint(model, weights)
    outputs = collect_outputs(Session(bundle_of(model, card, model.exit_blocks)), data, all_views=True)
    table = count_macs(model, model.image_size)
    ways = {
        score: choose_leaving(table, replace(outputs, scores=exit_scores(score, outputs.logits, outputs.scores)))
        for score in SCORES
    }
    score = max(ways, key=lambda score: ways[score].saved)
    leaving = tightest(ways[score])
    outputs, exits = leaving.outputs, leaving.exits
    temperatures = fit_temperatures(outputs.logits, outputs.labels, outputs.groups)
    bundle = bundle_of(model, card, [model.exit_blocks[k] for k in leaving.kept])
    bundle = calibrated_bundle(bundle, thresholds=leaving.thresholds, score=score, temperatures=temperatures)
    right = outputs.right[exits, np.arange(len(exits))].mean()
    return Seed(model, card, bundle, float(right), leaving.saved)


def tightest(leaving: Leaving) -> Leaving:
    """The same with the strictest thresholds that save enough, and as they are if those do not."""
    stricter = [replace(leaving, thresholds=tightened(leaving.thresholds, share)) for share in sorted(TIGHTER)]
    enough = (one for one in stricter if one.saved >= LEAST_SAVED and one.answered.min() >= LEAST_ANSWERED)
    return next(enough, leaving)


def bundle_of(model: nn.Module, card: Card, exits: list[int], precision: str = "int8") -> Bundle:
    """A bundle of the network with these of its exits, which nothing leaves at yet."""
    return build_bundle(
        model,
        exits=exits,
        thresholds=[NEVER] * len(exits),
        precision=precision,
        labels=card.classes,
        preprocess=card.preprocess,
        notes={"stages": card.stages},
    )


def stages_log(path: Path) -> list[dict]:
    """The rows of a log of pretrain.py."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def publish(seeds: Mapping[int, Seed], best: int, parts: dict[str, ImageFolder], log: Log, assets: Path) -> None:
    """Write the bundle of the seed `best` in all its forms, the samples, the curves and the card into `assets`."""
    model, card, bundle = seeds[best].model, seeds[best].card, rejecting(seeds[best].bundle, parts)
    bundle.save(assets / SHIPPED[EMBEDDED])
    without_full_depth(onnx_bundle(bundle)).save(assets / form_file(SHIPPED[EMBEDDED], ONNX))
    images = calibration_images(bundle.manifest.preprocess, parts["train"])
    litert_bundle(bundle, images).save(assets / form_file(SHIPPED[EMBEDDED], LITERT))
    manifest = bundle.manifest
    floats = calibrated_bundle(
        bundle_of(model, card, manifest.exit_blocks, "fp32"),
        thresholds=manifest.thresholds,
        score=manifest.notes["calibration"]["score"],
    )
    everything = Session(bundle_of(model, card, model.exit_blocks, "fp32"))
    right = collect_outputs(everything, parts["test"]).right.mean(1).tolist()
    depths = dict(zip([*model.exit_blocks, model.depth - 1], right, strict=True))
    judged = {seed: judged_on(Session(one.bundle), parts["test"]) for seed, one in seeds.items()}
    if not (assets / "samples").exists():  # documents show those that are there
        copy_samples(Session(bundle), parts["test"], assets / "samples")
    save_training_curves(log, {stage.name: stage.batch_size for stage in STAGES}, assets / CURVES)
    text = card_text(bundle, floats, parts, judged, depths, log)
    write_text(assets / "MODEL_CARD.md", text)
    print(text)


def judged_on(session: Session, data: ImageFolder) -> Evaluation:
    """What the session answers on `data`."""
    return evaluate(session, data, collect_outputs(session, data), session.manifest.thresholds)


def rejecting(bundle: Bundle, parts: dict[str, ImageFolder]) -> Bundle:
    """The bundle that says of images unlike all it knows that they are none of its classes."""
    session = Session(bundle)
    known, others = (collect_outputs(session, parts[name]) for name in ("train", "calibrate"))
    return bundle.with_manifest(
        rejection=rejection_of(known, others, bundle.manifest.thresholds, bundle.manifest.labels, REJECTED)
    )


def card_text(
    bundle: Bundle,
    floats: Bundle,
    parts: dict[str, ImageFolder],
    judged: dict[int, Evaluation],
    depths: dict[int, float],
    log: Log,
) -> str:
    """The model card; `floats` is the bundle in fp32, `judged` each seed's on the test part."""
    manifest, test = bundle.manifest, parts["test"]
    sessions = {"int8": Session(bundle), "fp32": Session(floats)}
    outputs = {precision: collect_outputs(session, test) for precision, session in sessions.items()}
    both = {
        precision: evaluate(session, test, outputs[precision], manifest.thresholds)
        for precision, session in sessions.items()
    }
    same = (outputs["int8"].logits[-1].argmax(-1) == outputs["fp32"].logits[-1].argmax(-1)).mean()
    int8 = both["int8"]
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
        accuracy=model_card.accuracy_rows(both),
        exits=model_card.exit_rows(int8),
        mean_macs=mega(int8.mean_macs),
        full_macs=mega(int8.full_depth_macs),
        saved=percent(1 - int8.mean_macs / int8.full_depth_macs),
        agreement=percent(float(same)),
        promised=percent(REJECTED, 0),
        rejected=percent(int8.rejected),
        twins=twin_section(find_twins(test, parts["train"]), sessions["int8"], test),
        seeds=model_card.seed_rows(judged),
        depths=model_card.depth_rows(depths),
        command=MADE_BY,
    )


def copy_samples(session: Session, test: ImageFolder, folder: Path, per_exit: int = 3) -> None:
    """A few test images for each exit, of as many classes as possible, under their class name."""
    folder.mkdir(parents=True)
    classes_of: dict[int, set[int]] = {}
    for path, label, answer in zip(test.paths, test.labels, session.classify_many(test.paths), strict=True):
        classes = classes_of.setdefault(answer.exit_index, set())
        if len(classes) < per_exit and not any(label in other for other in classes_of.values()):
            classes.add(label)
            shutil.copy(path, folder / path.name)


if __name__ == "__main__":
    main()
