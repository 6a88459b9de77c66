"""Loading of published and own checkpoint files into a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from torch import Tensor, nn

from pi_dynn.errors import CheckpointError
from pi_dynn.models.checkpoint_exits import EXIT_KEY, exits_by_block
from pi_dynn.models.checkpoint_file import read_checkpoint
from pi_dynn.models.gfnet import PREFIX_TOKENS
from pi_dynn.models.resize import resize_state_dict

TRAINING_ONLY = ("fc1.",)  # EAE: projects features to the teacher's width, not needed after training


@dataclass(frozen=True)
class LoadReport:
    """The report of loading a checkpoint, by keys; `fits` if the network got all of its weights from it."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]  # "key (file 10x384, model 45x384)"
    left_out: tuple[str, ...]  # known but not needed here: other exits, training-only projections
    resized_from: int | None  # image size of the file, where it is another
    hints: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every weight of the network came from the file, and no key was left over."""
        return not (self.missing or self.unexpected or self.misshaped)


def load_checkpoint(
    model: nn.Module, path: str | Path, strict: bool = True, *, file_exits: Sequence[int] | None = None
) -> LoadReport:
    """Put the weights of the file at `path` into `model`, in place.

    Reads PyTorch files (a bare state dict or one under "model", "net" or "state_dict"; `module.` prefixes)
    and safetensors, without ever running code from them. Exits are matched by block; `file_exits` are the
    blocks the file's exits follow, needed if neither the file nor its number of exits shows them. A plain network of
    another image size is resized (see resize.py). With `strict=False` all that fits is loaded and the report
    names the rest; otherwise nothing is loaded unless everything fits.

    Raises: CheckpointError for a file that cannot be read safely or, naming every missing, unexpected and
    mis-shaped key, one that does not fit.
    """
    file = read_checkpoint(path)
    own = model.state_dict()
    dropped = [key for key in file.state if key.startswith(TRAINING_ONLY) and key not in own]
    state = {_own_key(key, own): value for key, value in file.state.items() if key not in dropped}
    state, other_exits = exits_by_block(state, model, file.exit_blocks if file_exits is None else file_exits)
    state, resized_from = _at_image_size(state, model)
    misshaped = [key for key in own if key in state and state[key].shape != own[key].shape]
    report = LoadReport(
        missing=tuple(key for key in own if key not in state),
        unexpected=tuple(key for key in state if key not in own),
        misshaped=tuple(f"{key} (file {_size(state[key])}, model {_size(own[key])})" for key in misshaped),
        left_out=(*dropped, *other_exits),
        resized_from=resized_from,
        hints=tuple(_hints(state, own, getattr(model, "exit_blocks", []))),
    )
    if strict and not report.fits:
        raise CheckpointError(_misfit(file.path, model, report))
    fitting = {key: value for key, value in state.items() if key in own and key not in misshaped}
    model.load_state_dict(fitting, strict=False)
    return report


def _own_key(key: str, own: Mapping[str, Tensor]) -> str:
    """`key` as the model calls it: a backbone's own checkpoint lacks the prefix it has among its exits."""
    inside = f"backbone.{key}"
    return inside if key not in own and inside in own else key


def image_size_of(state: Mapping[str, Tensor]) -> int | None:
    """The image size a GFNet's weights were trained at, in pixels; None for another family."""
    patches = state.get("patch_embed.proj.weight", state.get("patch_embed.0.proj.weight"))
    positions = state.get("pos_embed")
    if patches is None or positions is None or patches.dim() != 4 or positions.dim() != 3:
        return None
    tokens = positions.shape[1] - (PREFIX_TOKENS if "cls_token" in state else 0)
    side = isqrt(max(0, tokens))
    return side * patches.shape[-1] if side * side == tokens else None


def grid_of(state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """The grid (a, b) the first filter of an isotropic GFNet lays its tokens out on; None for another family.

    It is taken from the shape of the filter, `(a, b//2+1, C, 2)`: grids of the same number of tokens can have
    equally many parameters (11 x 6 and 22 x 3), so a count cannot distinguish them.
    """
    weight, positions = state.get("blocks.0.filter.complex_weight"), state.get("pos_embed")
    if weight is None or positions is None or weight.dim() != 4 or positions.dim() != 3:
        return None
    a, b = weight.shape[0], positions.shape[1] // weight.shape[0]
    return (a, b) if a * b == positions.shape[1] and weight.shape[1] == b // 2 + 1 else None


def _at_image_size(state: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], int | None]:
    """`state` at the model's image size, and the size it had if that is another."""
    file_size, model_size = image_size_of(state), getattr(model, "image_size", None)
    same_kind = ("cls_token" in state) == bool(getattr(model, "distilled", False))
    if not same_kind or file_size is None or model_size is None or file_size == model_size:
        return state, None
    return resize_state_dict(state, file_size, model_size), file_size


def _hints(state: Mapping[str, Tensor], own: Mapping[str, Tensor], exit_blocks: Sequence[int]) -> list[str]:
    """What to do about the commonest reasons for a misfit."""
    hints = []
    if "cls_token" in state and "cls_token" not in own and "pos_embed" in own:
        hints.append("the file is of a distilled network: build the model with distilled=True")
    if "cls_token" in own and "cls_token" not in state:
        hints.append("the file is of a plain network: build the model with distilled=False")
    grid, own_grid = grid_of(state), grid_of(own)
    if grid and own_grid and grid != own_grid and grid[0] * grid[1] == own_grid[0] * own_grid[1]:
        hints.append(f"the file's tokens lie on a grid of {grid[0]} x {grid[1]}: build the model with grid={grid}")
    if "head.weight" in state and "head.weight" in own and state["head.weight"].shape[0] != own["head.weight"].shape[0]:
        hints.append(f"the file knows {state['head.weight'].shape[0]} classes; strict=False loads all but the heads")
    lacking = {exit_blocks[int(m[2])] for key in own if key not in state and (m := EXIT_KEY.fullmatch(key))}
    if lacking:
        hints.append(f"the file has no whole exit after blocks {sorted(lacking)}; strict=False leaves them untrained")
    return hints


def _misfit(path: Path, model: nn.Module, report: LoadReport) -> str:
    parts = [
        f"{label}: {', '.join(keys)}"
        for label, keys in (
            ("missing", report.missing),
            ("unexpected", report.unexpected),
            ("wrong shape", report.misshaped),
        )
        if keys
    ]
    return f"the checkpoint {str(path)!r} does not fit {type(model).__name__}: {'; '.join((*parts, *report.hints))}"


def _size(tensor: Tensor) -> str:
    return "x".join(str(length) for length in tensor.shape) or "scalar"
