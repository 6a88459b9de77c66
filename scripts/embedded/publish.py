"""What `train.py` made becomes what the package ships: bundle, sample photographs, curves and model card."""

import csv
import shutil
from pathlib import Path

import model_card
import torch
from loop import predict_exits
from training_plot import save_training_curves
from twins import find_twins, twin_section

from pi_dynn.data.folders import ImageFolder
from pi_dynn.deploy.builder import build_bundle
from pi_dynn.deploy.export import calibration_images
from pi_dynn.deploy.litert import litert_bundle
from pi_dynn.deploy.onnx import onnx_bundle, without_full_depth
from pi_dynn.evaluate.outputs import collect_outputs, evaluate
from pi_dynn.evaluate.thresholds import rejection_of
from pi_dynn.files import write_text
from pi_dynn.models.card import Card, read_card
from pi_dynn.models.checkpoint import load_checkpoint
from pi_dynn.models.registry import create_model
from pi_dynn.runtime.archive import EMBEDDED, SHIPPED, form_file
from pi_dynn.runtime.bundle import Bundle, load_bundle
from pi_dynn.runtime.session import Session
from pi_dynn.text import mega, percent
from pi_dynn.train.data import held_out_tensors
from pi_dynn.train.networks import faster_on
from pi_dynn.train.records import TrainResult

CURVES = "training_curves.svg"
DATA_NOTE = """Task and figures: UC Merced Land Use (Yang and Newsam, 2010), made from USGS National Map imagery in
the public domain, 80 images of each of 21 classes. Pretraining also on AID (30 classes) and RSSCN7 (7 classes),
Google Earth imagery used for training only: none of it is shipped. The sample photographs are UC Merced images."""
RECIPE_NOTE = """AdamW, cosine schedule, mixup or cutmix, crops, quarter turns, flips,
colour changes, exponential moving average of the weights; exits are trained with the network, their mean loss
at weight {exit_weight}. The phases see all 58 classes, two of them those of the task only. The network starts from
nothing; from the third phase on it also learns from a teacher, EfficientNet-Lite0 with ImageNet weights (Apache-2.0):
its leading feature components are regressed by every head, and half of each label is what a linear
classifier on those features says of an image it was not fitted on. No teacher saw an image of the held-out parts.
Then the network is frozen, and `pi-dynn train exits` learns heads and gates after every block and keeps the exits
and the one threshold that are cheapest on eight turned and flipped views of the calibration images without losing
accuracy there."""


REJECTED = 0.05  # of images like those it knows, at most


def publish(results: dict[int, TrainResult], parts: dict[str, ImageFolder], log: Path, assets: Path) -> Path:
    """Write everything into `assets`; the bundle there. Of `results`, by seed of the exits, the first is shipped."""
    shipped, test = next(iter(results.values())), parts["test"]
    bundle = rejecting(load_bundle(shipped.bundle), parts)
    bundle.save(assets / SHIPPED[EMBEDDED])
    without_full_depth(onnx_bundle(bundle)).save(assets / form_file(SHIPPED[EMBEDDED], "onnx"))
    images = calibration_images(bundle.manifest.preprocess, parts["train"])
    litert_bundle(bundle, images).save(assets / form_file(SHIPPED[EMBEDDED], "litert"))
    card = read_card(shipped.weights)
    model = create_model(card.model, **card.arguments)
    load_checkpoint(model, shipped.weights)
    faster_on(model.eval(), torch.device("cpu"))
    preprocess = card.preprocess
    floats = build_bundle(
        model,
        exits=shipped.exit_blocks,
        thresholds=bundle.manifest.thresholds,
        precision="fp32",
        labels=bundle.manifest.labels,
        preprocess=preprocess,
    )
    sessions = {"int8": Session(bundle), "fp32": Session(floats)}
    copy_samples(sessions["int8"], test, assets / "samples")
    x, labels = held_out_tensors(test, preprocess)
    right = (predict_exits(model, x).argmax(-1) == labels).float().mean(1).tolist()
    depths = dict(zip([*model.exit_blocks, model.depth - 1], right, strict=True))
    write_card(card, bundle, sessions, parts, results, depths, log, assets)
    return assets / SHIPPED[EMBEDDED]


def rejecting(bundle: Bundle, parts: dict[str, ImageFolder]) -> Bundle:
    """The bundle that says of images unlike all it knows that they are none of its classes."""
    session = Session(bundle)
    known, others = (collect_outputs(session, parts[name]) for name in ("train", "calibrate"))
    return bundle.with_manifest(
        rejection=rejection_of(known, others, bundle.manifest.thresholds, bundle.manifest.labels, REJECTED)
    )


def write_card(
    card: Card,
    bundle: Bundle,
    sessions: dict[str, Session],
    parts: dict[str, ImageFolder],
    results: dict[int, TrainResult],
    depths: dict[int, float],
    log: Path,
    assets: Path,
) -> None:
    """Judge both precisions on the test part; write the curves and the card."""
    manifest, test = bundle.manifest, parts["test"]
    outputs = {precision: collect_outputs(session, test) for precision, session in sessions.items()}
    judged = {
        precision: evaluate(session, test, outputs[precision], manifest.thresholds)
        for precision, session in sessions.items()
    }
    same = (outputs["int8"].logits[-1].argmax(-1) == outputs["fp32"].logits[-1].argmax(-1)).mean()
    int8, phases = judged["int8"], [stage["recipe"] for stage in card.stages[:-1]]
    rows = list(csv.DictReader(log.read_text().splitlines()))
    held_out = f"acc_{manifest.depth - 1}"
    save_training_curves(rows, held_out, assets / CURVES)
    text = model_card.CARD.format(
        name=SHIPPED[EMBEDDED],
        summary="What `pi-dynn classify` runs when no other bundle is given: aerial scenes, 21 land-use classes.",
        network=f"{card.model}, exits after blocks {', '.join(str(block) for block in manifest.exit_blocks)}",
        classes=", ".join(manifest.labels),
        size=manifest.preprocess.size,
        megabytes=len(bundle.data) / 1e6,
        sha256=bundle.sha256,
        data=DATA_NOTE,
        recipe=RECIPE_NOTE.format(**phases[-1]),
        phases=model_card.phase_rows(phases, rows, held_out),
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
        command="python scripts/embedded/train.py --data DATA --amp",
    )
    write_text(assets / "MODEL_CARD.md", text)
    print(text)


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
