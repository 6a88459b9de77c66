"""A tiny pretrained network, and folders of coloured noise to learn from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.models import efficientnet_lite, pretrained, registry
from pi_dynn.models.efficientnet_lite import EfficientNetLite, Stage
from pi_dynn.models.pretrained import Pretrained
from tests.networks import with_trained_norms

STAGES = (
    Stage(1, 3, 1, 1, 8),
    Stage(1, 3, 2, 2, 8),
    Stage(1, 3, 2, 2, 16),
    Stage(2, 3, 1, 2, 16),
    Stage(1, 3, 1, 2, 16),
)


def register_tiny(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let `tiny` be a network with pretrained weights: an EfficientNet-Lite of six narrow blocks for 32 px."""
    patch.setattr(efficientnet_lite, "STAGES", STAGES)
    patch.setattr(efficientnet_lite, "HEAD", 32)
    patch.setitem(efficientnet_lite.SIZES, "tiny", (1.0, 1.0, 32, 0.0))
    patch.setitem(registry._BUILDERS, "tiny", lambda **arguments: EfficientNetLite("tiny", **arguments))
    torch.manual_seed(0)
    file = folder / "tiny.safetensors"
    save_file(with_trained_norms(EfficientNetLite("tiny", num_classes=7, image_size=32)).state_dict(), file)
    known = Pretrained(
        "tiny", "a generator", "no licence", "noise", 0.1, 7, Preprocess(32, 1.0, (0.5,) * 3, (0.5,) * 3)
    )
    own_file = pretrained.pretrained_file

    def file_of(name: str) -> Path:
        return file if name == "tiny" else own_file(name)

    def weights_of(
        name: str, other: Callable[[str], Pretrained | None] = pretrained.pretrained_of
    ) -> Pretrained | None:
        return known if name == "tiny" else other(name)

    patch.setattr(pretrained, "pretrained_file", file_of)
    patch.setattr(pretrained, "pretrained_of", weights_of)


def coloured_noise(
    folder: Path, each: int, classes: tuple[str, ...] = ("red", "green", "blue"), side: int = 40
) -> Path:
    """`each` pictures of every class, the first of which are red, green and blue."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 120, (side, side, 3), dtype=np.uint8)
            pixels[..., number % 3] += 120
            Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(folder / name / f"{i}.png")
    return folder
