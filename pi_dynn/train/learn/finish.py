"""From a trained network to its bundle: exits chosen, int8, checked against fp32, thresholds, and judged.

Exits, precision, thresholds and the limit of "none of these" are chosen on the calibration part; the test part is
only reported on.
Shape letters: K exits including the last answer, N images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pi_dynn.calibrate.choose_exits import choose_exits
from pi_dynn.calibrate.outcomes import ExitOutcomes, leave_at, operating_point
from pi_dynn.calibrate.records import OperatingPoint
from pi_dynn.calibrate.reject import Rejection
from pi_dynn.calibrate.rules import RuleSettings, choose
from pi_dynn.calibrate.scores import exit_scores, softmax
from pi_dynn.calibrate.temperature import fit_temperatures
from pi_dynn.calibrate.validate import tightened, tightening
from pi_dynn.data.folders import ImageFolder
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.builder import DEFAULT_THRESHOLD, build_bundle
from pi_dynn.deploy.calibrated import calibrated_bundle
from pi_dynn.deploy.fuse import fuse_norms
from pi_dynn.deploy.litert import litert_bundle
from pi_dynn.deploy.onnx import onnx_bundle, without_full_depth
from pi_dynn.errors import CalibrationError, EngineUnavailable, ModelError
from pi_dynn.evaluate.classes import confusion_matrix
from pi_dynn.evaluate.outputs import ExitOutputs, collect_outputs, evaluate
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.evaluate.thresholds import rejection_of
from pi_dynn.models.chain import ChainNetwork
from pi_dynn.models.mac_table import MacTable
from pi_dynn.models.macs import count_macs
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.forms import LITERT, ONNX, TORCHSCRIPT
from pi_dynn.runtime.manifest import INT8_STATIC
from pi_dynn.runtime.session import Session
from pi_dynn.stats import standard_error, wilson_interval
from pi_dynn.train.records import LEAST_TO_CHOOSE, TOLERATED_LOSS, Answer, ClassAccuracy

SCORE = "max-probability"
TIGHTER = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # shares of the distance of thresholds to 1
ENOUGH_IMAGES = 1000  # to choose by, so that one view of each does
MOST_VIEWS = 8
MOST_EXITS = 4
LEAST_ANSWERED = 0.05  # of the images that exits are chosen on, by each that is kept
WORST_INT8_LOSS = 0.01  # of accuracy on the calibration part; beyond it by a standard error the bundle is fp32
RANGED = 128  # training images that set the ranges of int8
KNOWN_OF_A_CLASS = 16  # training images, by which what the class usually gets is learned
_GRID = tuple(np.linspace(0.3, 0.995, 140).round(4).tolist())


@dataclass(frozen=True)
class Images:
    """What a bundle is built with.

    `ranged` are normalised training images (N, 3, H, W), which set the ranges of int8; `known` are training images of
    every class, which set what it usually gets; `held_out` are the normalised images of `calibration` and their labels.
    """

    ranged: Tensor
    known: ImageFolder
    calibration: ImageFolder
    held_out: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Built:
    """A bundle with its thresholds, others from cheap to dear, why it is not int8, how often int8 agrees with fp32."""

    bundle: Bundle
    curve: list[list[float]]
    reason: str | None
    agreement: float | None


@dataclass(frozen=True)
class Judged:
    """A bundle on the test part."""

    evaluation: Evaluation
    exits_cost: float
    per_class: list[ClassAccuracy]
    confusion: list[list[int]]
    answers: list[Answer]
    curve: list[OperatingPoint]


@torch.inference_mode()
def all_logits(model: nn.Module, x: Tensor) -> NDArray[np.float64]:
    """Logits (K, N, classes) of every exit for normalised images x (N, 3, H, W)."""
    model.eval()
    parts = [torch.stack([logits for _, logits, _ in model.forward_exits(batch)]) for batch in x.split(32)]
    return torch.cat(parts, 1).float().numpy().astype(np.float64)


def harmless(right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each exit's answer does no harm, from whether it is right, (K, N): right, or wrong as the last answer is.

    What leaving early spoils is held apart from what it happens to mend: of a few hundred images an exit is soon the
    most accurate by luck, and all images would leave there.
    """
    return right | ~right[-1]


@dataclass(frozen=True)
class Leaving:
    """Exits that are kept, as places among all, and where images leave; `curve` has thresholds of other costs.

    `macs` and `outputs` are those of the exits kept and of the last answer.
    """

    kept: list[int]
    macs: list[float]
    outputs: ExitOutputs
    thresholds: list[float]
    curve: list[list[float]]

    @property
    def exits(self) -> NDArray[np.int64]:
        """The exit index (N,) of each image."""
        return leave_at(self.outputs.scores, self.thresholds)

    @property
    def answered(self) -> NDArray[np.float64]:
        """The share of the images that each exit kept answers, (K - 1,)."""
        return np.bincount(self.exits, minlength=len(self.macs))[:-1] / len(self.outputs.labels)

    @property
    def saved(self) -> float:
        """The share of the multiply-adds at full depth that is saved."""
        return float(1 - np.array(self.macs)[self.exits].mean() / self.macs[-1])


def choose_leaving(table: MacTable, outputs: ExitOutputs) -> Leaving:
    """The exits that save most and the thresholds that do no harm, by what all exits cost and answer.

    An exit that answers less than LEAST_ANSWERED of these images is not kept.
    """
    kept = worthwhile_exits(table, outputs)
    while True:
        macs = [answer.macs for answer in table.keeping([table.exits[k].block_index for k in kept]).exits]
        own = _of_exits(outputs, kept)
        leaving = Leaving(kept, macs, own, *harmless_thresholds(macs, own)) if kept else Leaving([], macs, own, [], [])
        answered = leaving.answered
        if not kept or answered.min() >= LEAST_ANSWERED:
            return leaving
        kept = [k for k, share in zip(kept, answered, strict=True) if share > answered.min()]


def _of_exits(outputs: ExitOutputs, kept: list[int]) -> ExitOutputs:
    """The outputs of these exits and of the last answer."""
    rows = [*kept, len(outputs.logits) - 1]
    return replace(outputs, logits=outputs.logits[rows], scores=outputs.scores[rows])


def worthwhile_exits(table: MacTable, outputs: ExitOutputs) -> list[int]:
    """Places of the exits that save most at one threshold for all, by what all of them cost and answer."""
    return choose_exits(
        outputs.scores,
        harmless(outputs.right).astype(np.float64),
        [answer.macs for answer in table.exits],
        [answer.check_macs for answer in table.exits],
        most=MOST_EXITS,
        tolerated_loss=TOLERATED_LOSS,
        grid=_GRID,
    ).exits


def some_of_each_class(data: ImageFolder, count: int) -> ImageFolder:
    """At most `count` images of every class, the first ones."""
    taken: dict[int, list[int]] = {}
    for i, label in enumerate(data.labels):
        taken.setdefault(label, []).append(i)
    return data.subset(sorted(i for members in taken.values() for i in members[:count]))


def build(
    model: ChainNetwork,
    preprocess: Preprocess,
    images: Images,
    notes: dict,
    *,
    any_way_up: bool,
    reject: float,
    form: str = TORCHSCRIPT,
) -> Built:
    """The bundle of a trained network, in int8 unless that answers worse on the calibration part.

    It has exits only where the calibration part is large enough to tell when leaving early does no harm; `any_way_up`
    allows to look at its images turned, too. Of images like those at most the share `reject` is answered "none of
    these"; 0, or a part too small to promise it, leaves that out. Temperatures make its
    probabilities those of being right. At the end it is put into its form.
    """

    def made(exits: list[int], precision: str) -> Bundle:
        return build_bundle(
            model,
            exits=exits,
            thresholds=[DEFAULT_THRESHOLD] * len(exits),
            precision=precision,
            labels=images.calibration.classes,
            preprocess=preprocess,
            notes=notes,
            calibration=images.ranged if precision == INT8_STATIC else None,
        )

    blocks = model.exit_blocks if len(images.held_out[1]) >= LEAST_TO_CHOOSE else []
    bundle, answers, agreement, reason = _in_int8(lambda precision: made(blocks, precision), model, images)
    outputs = viewed_outputs(Session(bundle), images.calibration, answers, any_way_up)
    outputs = replace(outputs, scores=exit_scores(SCORE, outputs.logits, outputs.scores))
    leaving = choose_leaving(count_macs(fuse_norms(model), model.image_size).keeping(blocks), outputs)
    if len(leaving.kept) < len(blocks):
        bundle = made([blocks[k] for k in leaving.kept], bundle.manifest.precision)
    outputs, thresholds = leaving.outputs, leaving.thresholds
    rejection = _rejection(bundle, images.known, outputs, thresholds, reject) if reject else None
    temperatures = fit_temperatures(outputs.logits, outputs.labels, outputs.groups)
    try:
        bundle = calibrated_bundle(
            bundle, thresholds=thresholds, score=SCORE, temperatures=temperatures, rejection=rejection
        )
    except ModelError:  # heads of another kind take no temperature
        bundle = calibrated_bundle(bundle, thresholds=thresholds, score=SCORE, rejection=rejection)
    if form == ONNX:
        bundle = without_full_depth(onnx_bundle(bundle))
    elif form == LITERT:
        bundle = litert_bundle(bundle)
    return Built(bundle, leaving.curve, reason, agreement)


def _in_int8(
    made: Callable[[str], Bundle], model: ChainNetwork, images: Images
) -> tuple[Bundle, ExitOutputs, float | None, str | None]:
    """The bundle in int8, in fp32 where that cannot be or answers worse on the calibration part, and why.

    With its answers there, and the share of labels that int8 has like the network in floats.
    """
    agreement = None
    try:
        bundle = made(INT8_STATIC)
        answers = collect_outputs(Session(bundle), images.calibration)
    except (ModelError, EngineUnavailable) as error:
        reason = str(error)
    else:
        wanted = all_logits(model, images.held_out[0])[-1].argmax(-1)
        agreement = float((answers.logits[-1].argmax(-1) == wanted).mean())
        loss, noise = accuracy_loss(wanted == images.held_out[1].numpy(), answers.right[-1])
        if loss - noise <= WORST_INT8_LOSS:
            return bundle, answers, agreement, None
        reason = f"int8 loses {100 * loss:.1f} points of accuracy on the calibration part"
    bundle = made("fp32")
    return bundle, collect_outputs(Session(bundle), images.calibration), agreement, reason


def accuracy_loss(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float]:
    """The accuracy lost between answers to the same N images, by which were right, and its standard error."""
    change = before.astype(np.float64) - after
    return float(change.mean()), standard_error(change.tolist())


def viewed_outputs(session: Session, data: ImageFolder, plain: ExitOutputs, any_way_up: bool) -> ExitOutputs:
    """The outputs of all exits on `data`, `plain`; of few images also mirrored, and turned where they have no upright.

    A hundred images rarely show the one in a hundred that an early exit spoils; their views show some more.
    """
    if len(data) >= ENOUGH_IMAGES:
        return plain
    if any_way_up:
        return collect_outputs(session, data, all_views=True)
    mirrored = collect_outputs(session, data, alter=_mirrored)
    return ExitOutputs(
        np.concatenate([plain.logits, mirrored.logits], 1),
        np.concatenate([plain.scores, mirrored.scores], 1),
        np.concatenate([plain.labels, mirrored.labels]),
        plain.failed,
        np.concatenate([plain.places, mirrored.places]),
    )


def _mirrored(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[:, ::-1])


def harmless_thresholds(costs: list[float], outputs: ExitOutputs) -> tuple[list[float], list[list[float]]]:
    """The thresholds that save most at a harm of at most TOLERATED_LOSS on these images, and those of other costs.

    `costs` are the multiply-adds of every answer. On images they were not chosen by thresholds do two or three times
    that harm, so they are tightened, at most tenfold, until it is half of it in cross-validation.
    """
    outcomes = ExitOutcomes(outputs.scores, harmless(outputs.right), costs, outputs.groups)
    settings = RuleSettings(max_loss=TOLERATED_LOSS)
    choice = choose("target-accuracy", outcomes, settings)
    share = tightening(
        outcomes, lambda some: choose("target-accuracy", some, settings).point.thresholds, TIGHTER, TOLERATED_LOSS / 2
    )
    return tightened(choice.point.thresholds, share), [point.thresholds for point in choice.curve]


def _rejection(
    bundle: Bundle, known: ImageFolder, outputs: ExitOutputs, thresholds: list[float], alpha: float
) -> Rejection | None:
    """When to answer "none of these"; None where the images are too few to promise `alpha`."""
    try:
        usual = collect_outputs(Session(bundle), known)
        return rejection_of(usual, outputs, thresholds, bundle.manifest.labels, alpha)
    except CalibrationError:
        return None


def judge(built: Built, test: ImageFolder) -> Judged:
    """Accuracy of a bundle on images that took no part in making it, class by class and image by image."""
    session = Session(built.bundle)
    outputs = collect_outputs(session, test)
    thresholds = built.bundle.manifest.thresholds
    result = evaluate(session, test, outputs, thresholds)
    exits = leave_at(outputs.scores, thresholds)
    samples = np.arange(len(exits))
    logits = outputs.logits[exits, samples]
    given = logits.argmax(-1)
    confusion = confusion_matrix(outputs.labels, given, len(test.classes))
    curve = []
    if built.curve:
        costs = [float(macs) for macs in built.bundle.manifest.macs]
        outcomes = ExitOutcomes(outputs.scores, outputs.right, costs)
        curve = [operating_point(outcomes, limits) for limits in built.curve]
    return Judged(
        evaluation=result,
        exits_cost=result.full_depth_acc1 - result.acc1,
        per_class=_class_results(test.classes, confusion),
        confusion=confusion.tolist(),
        answers=_answers(test, outputs, given, softmax(logits).max(-1), exits),
        curve=curve,
    )


def _class_results(classes: list[str], confusion: NDArray[np.int64]) -> list[ClassAccuracy]:
    rows = []
    for label, name in enumerate(classes):
        right, images = int(confusion[label, label]), int(confusion[label].sum())
        rows.append(ClassAccuracy(name, images, right, wilson_interval(right, images) if images else (0.0, 1.0)))
    return rows


def _answers(
    test: ImageFolder,
    outputs: ExitOutputs,
    given: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    exits: NDArray[np.int64],
) -> list[Answer]:
    """One record per image; those that could not be read are not among them."""
    return [
        Answer(test.relative(i), int(label), int(answer), float(probability), int(leaves))
        for i, label, answer, probability, leaves in zip(
            outputs.places, outputs.labels, given, probabilities, exits, strict=True
        )
    ]
