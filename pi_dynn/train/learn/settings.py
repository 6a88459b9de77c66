"""What `learn` is asked for, the networks that answer it, and what they are predicted to take on a board."""

from dataclasses import dataclass
from pathlib import Path

from pi_dynn.errors import InputError
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.latency.boards import board_model, board_timings, pretrained_latency_s, pretrained_within
from pi_dynn.models.pretrained import is_here
from pi_dynn.runtime.forms import FORM_NAMES, FORM_SUFFIXES, LITERT, ONNX, TORCHSCRIPT, form_of_file
from pi_dynn.runtime.manifest import INT8_STATIC
from pi_dynn.train.records import BoardLatency

DEFAULT_MODEL = "efficientnet_lite0"
# Of the time at full depth, what the first layers take beyond their share of the multiply-adds: their feature maps are
# large. Counted for `lite0` and a network of 160 px on both boards: 0.15 to 0.23 as graphs, 0.01 as torch runs it.
FIRST_LAYERS = {TORCHSCRIPT: 0.0, ONNX: 0.18, LITERT: 0.18}
DEFAULT_SIZES = (160, 128, 96)  # pixels, the preferred one first


@dataclass(frozen=True)
class LearnSettings:
    """One run. `out` is the bundle, in the form that its name says; all else goes into the folder beside it."""

    folder: Path
    out: Path
    minutes: float = 10.0
    layout: str | None = None  # the published set that the folder has to be a copy of...
    partial: bool = False  # ...or a part of
    split: Path | None = None
    model: str | None = None  # None: the default, or what fits the budget
    image_size: int | None = None
    board: str | None = None  # the budget is for it
    budget_s: float | None = None  # for an answer at full depth
    how: str = "auto"
    any_way_up: bool | None = None  # None: found out
    reject: float = 0.05  # at most this share of images like these is "none of these"
    seed: int = 0
    resume: bool = False

    @property
    def work(self) -> Path:
        """The folder beside the bundle: mine.run for mine.pt or mine.onnx.zip."""
        return self.out.with_name(f"{self.out.name.removesuffix(FORM_SUFFIXES.get(self.form, '.pt'))}.run")

    @property
    def form(self) -> str:
        """The form the bundle is to have, as its manifest says it."""
        return form_of_file(self.out.name)


def candidates(settings: LearnSettings) -> tuple[str, tuple[int, ...]]:
    """The pretrained network and its image sizes, the preferred one first.

    Raises: InputError for a budget that nothing fits, or that what was asked for does not.
    """
    if settings.board is None or settings.budget_s is None:
        sizes = DEFAULT_SIZES if settings.image_size is None else (settings.image_size,)
        return settings.model or DEFAULT_MODEL, sizes
    fitting = [
        (name, size)
        for name, size in pretrained_within(board_model(settings.board), settings.budget_s, settings.form)
        if settings.model in (None, name) and settings.image_size in (None, size) and is_here(name)
    ]
    if not fitting:
        raise InputError(
            f"nothing asked for is within {1e3 * settings.budget_s:g} ms on {settings.board}: leave --model and "
            "--image-size out, or give more"
        )
    network = fitting[0][0]
    return network, tuple(size for name, size in fitting if name == network)


def predicted_latencies(network: str, image_size: int, form: str, evaluation: Evaluation) -> list[BoardLatency]:
    """The latency on boards that can be predicted: of networks counted in its form, in static int8."""
    share = evaluation.mean_macs / evaluation.full_depth_macs
    latencies = []
    for board in board_timings().boards if evaluation.precision == INT8_STATIC else ():
        model = board_model(board.name)
        full_s = pretrained_latency_s(model, network, image_size, form)
        if full_s is not None:
            mean_s = full_s * (share + FIRST_LAYERS[form] * (1 - share))
            latencies.append(BoardLatency(board.title, full_s, mean_s, model.worst_error, FORM_NAMES[form]))
    return latencies
