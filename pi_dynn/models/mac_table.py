"""The multiply-adds of a network, by layer and by exit. Plain records, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from pi_dynn.errors import InputError
from pi_dynn.records import Record


@dataclass(frozen=True)
class LayerMacs(Record):
    """The multiply-adds of one call of one layer."""

    name: str
    kind: str
    macs: float
    exit_index: int  # the first exit, zero-based, that needs it
    is_check: bool  # made for that exit alone, not on the way to later ones


@dataclass(frozen=True)
class ExitMacs(Record):
    """The multiply-adds of an answer after `block_index`: its blocks, the exit checks before it, its own check."""

    block_index: int
    macs: float
    check_macs: float


@dataclass(frozen=True)
class MacTable(Record):
    """Multiply-adds of one image, cumulative per exit. The last exit is the final answer.

    `rule` says what was counted, such as "multiply-adds".
    """

    model: str
    image_size: int
    rule: str
    exits: tuple[ExitMacs, ...]
    layers: tuple[LayerMacs, ...]

    @property
    def total(self) -> float:
        """Cost of the final answer, all exit checks included."""
        return self.exits[-1].macs

    @property
    def total_without_exits(self) -> float:
        """Cost of the final answer of the same network without exits."""
        return sum(layer.macs for layer in self.layers if not layer.is_check)

    def keeping(self, blocks: Sequence[int]) -> "MacTable":
        """The table of the same network that checks only the exits after `blocks`.

        Raises: InputError for a block the network has no exit after.
        """
        known = [answer.block_index for answer in self.exits[:-1]]
        for block in blocks:
            if block not in known:
                raise InputError(f"no exit stands after block {block}: choose from {known}")
        indices = [k for k, block in enumerate(known) if block in blocks] + [len(known)]
        layers = []
        for layer in self.layers:
            if not layer.is_check or layer.exit_index in indices:
                later = next(new for new, old in enumerate(indices) if old >= layer.exit_index)
                layers.append(LayerMacs(layer.name, layer.kind, layer.macs, later, layer.is_check))
        return build_table(self.model, self.image_size, self.rule, [self.exits[k].block_index for k in indices], layers)

    def mean(self, counts: Sequence[float]) -> float:
        """Mean cost where `counts[k]` images (or their share) leave at exit k, the final answer last.

        Raises: InputError unless there is one count per exit, none negative, not all zero.
        """
        if len(counts) != len(self.exits) or min(counts) < 0 or sum(counts) <= 0:
            raise InputError(f"counts={list(counts)} must be {len(self.exits)} numbers, one per exit, with some images")
        return sum(n * answer.macs for n, answer in zip(counts, self.exits, strict=True)) / sum(counts)


@dataclass(frozen=True)
class ModelSize(Record):
    """How large a network is with so many classes; `macs` are the multiply-adds of one image."""

    KIND = "model"

    name: str
    image_size: int
    num_classes: int
    parameters: int
    macs: float


def build_table(model: str, image_size: int, rule: str, blocks: Sequence[int], layers: Sequence[LayerMacs]) -> MacTable:
    """Add up `layers` to a table with an answer after each of `blocks`."""
    exits, trunk, checks = [], 0, 0
    for k, block in enumerate(blocks):
        here = [layer for layer in layers if layer.exit_index == k]
        check = sum(layer.macs for layer in here if layer.is_check)
        trunk += sum(layer.macs for layer in here if not layer.is_check)
        checks += check
        exits.append(ExitMacs(block, trunk + checks, check))
    return MacTable(model, image_size, rule, tuple(exits), tuple(layers))
