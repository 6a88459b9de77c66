"""The networks of published tables by name: what to train, and the figures that were published for them.

Source: zhaoweizhao/EdgeComputing, its logs of 2024 (2024.11.15.md, new_GFNet_dynn.md, kan/8_CIFAR10_GPU.md). A base
network learned the classes, `distil` from the base, `dynn` has exits, `distil-dynn` both.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
from torch import nn

from pi_dynn.errors import UnknownModel
from pi_dynn.models.registry import create_model
from pi_dynn.records import Record
from pi_dynn.text import names_like

TEACHER = "gfnet_12_384"  # of every distilled network


@dataclass(frozen=True)
class Preset(Record):
    """One published network: heads and gates were trained after all blocks, and those after `exits` answered.

    `thresholds` are one for all exits or one for each, None where none was published. `accuracy` is in 0..1; of the
    test images `left` left at each exit, the last answer included, `right` of them answered right (None: not
    published). `boards` has the latency in ms and the net energy in mJ of an answer on each board, as printed.
    """

    KIND = "preset"

    name: str
    layout: str
    classes: int
    image_size: int
    model: str
    exits: list[int]
    exit_heads: str
    thresholds: list[float] | None
    accuracy: float
    left: list[int]
    right: list[int] | None
    boards: dict[str, tuple[float, float]]

    @property
    def distilled(self) -> bool:
        """Whether it has a distillation token."""
        return "-distil" in self.name

    def network(self) -> nn.Module:
        """The network in its training form, without memory for its weights."""
        with torch.device("meta"):
            return create_model(
                self.model,
                num_classes=self.classes,
                image_size=self.image_size,
                exits="all" if self.exits else None,
                distilled=self.distilled,
                exit_heads=self.exit_heads,
            )

    @property
    def parameters(self) -> int:
        """The number of parameters, heads and gates after all blocks included."""
        return sum(parameter.numel() for parameter in self.network().parameters())


@cache
def presets() -> dict[str, Preset]:
    """All presets by name, in the order of the published tables."""
    rows = json.loads((files("pi_dynn.models") / "published.json").read_text(encoding="utf-8"))
    return {row["name"]: Preset.from_dict(row) for row in rows}


def preset_named(name: str) -> Preset:
    """The preset of that name. Raises UnknownModel."""
    if name not in presets():
        hint = names_like(name, presets(), "pi-dynn models --presets")
        raise UnknownModel(f"no preset is named {name!r}: {hint}")
    return presets()[name]
