"""What EfficientNet-Lite0 says of every view, computed once and kept on disk.

Only its 1280 pooled features are kept: the 1000 ImageNet classes are a linear function of them. Its batch norms are
folded and it computes in bfloat16, which takes 0.6 of the plain network's time at 128 px where the processor has
bfloat16 products, and 13 times as long where it has none; there it computes in float32.

Source: the weights of EfficientNet-Lite0, Apache-2.0, from the package of the extra `[train]`.
"""

import time
from pathlib import Path

import numpy as np
import torch
from pack import Packed
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from views import Views, render

from pi_dynn import create_model
from pi_dynn.board import instruction_sets
from pi_dynn.models.pretrained import load_pretrained

FEATURES, IMAGENET_CLASSES = 1280, 1000
IMAGE_SIZE = 224  # it was trained at; it takes others as well
SIZES = {"tiny_imagenet": 96, "cifar10": 96, "ucm_train": 128}  # what it sees of each set
SIZE = 128  # of the sets not named; 224 px tell more (see the README) and take three times as long
BATCH = 64


class Teacher(nn.Module):
    """Images (B, 3, R, R) in 0..255 to pooled features (B, 1280); `classify` turns those into ImageNet logits."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        network = create_model("efficientnet_lite0", num_classes=IMAGENET_CLASSES, image_size=IMAGE_SIZE).eval()
        load_pretrained(network)
        weight, bias = network._fc.weight.detach().clone(), network._fc.bias.detach().clone()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        fold_norms(network)
        chain = network.chain()
        trunk = nn.Sequential(chain.stem, *(module for block in chain.blocks for module in block))
        self.dtype = fast_type(device)
        self.trunk = trunk.to(memory_format=torch.channels_last, dtype=self.dtype)
        self.to(device).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = ((x - 127) / 128).to(self.dtype)  # as these weights were trained
        x = x.contiguous(memory_format=torch.channels_last)
        return self.trunk(x).float().mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias


def fast_type(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU and on a CPU that lists bfloat16 products, else float32."""
    products = device.type != "cpu" or {"avx512_bf16", "amx_bf16", "bf16"} & instruction_sets()
    return torch.bfloat16 if products else torch.float32


def fold_norms(network: nn.Module) -> None:
    """Put every batch norm of an EfficientNet-Lite into the convolution before it, in place."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
    for owner, conv, norm in pairs:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())


def write_features(teacher, data: Packed, views: Views, size: int, device: torch.device, path: Path) -> int:
    """Features (N, 1280) float16 of one view of every image of a set into a map at `path`; how many were missing.

    Rows that an earlier call left are kept: a row not yet written is zero, which no features are.
    """
    if not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(len(data), FEATURES)).flush()
    features = np.load(path, mmap_mode="r+")
    missing = np.flatnonzero(~features.any(1))
    for start in range(0, len(missing), BATCH):
        rows = missing[start : start + BATCH]
        pixels = torch.from_numpy(data.pixels[rows]).to(device)
        with torch.inference_mode():
            features[rows] = teacher(render(pixels, views[torch.from_numpy(rows)], size)).half().cpu().numpy()
    features.flush()
    return len(missing)


def cached_features(data: Packed, views: Views, name: str, folder: Path, device: torch.device) -> np.ndarray:
    """Features (N, 1280) of a view of every image, from the cache or computed into it; `name` is that of the view."""
    size = SIZES.get(data.name, SIZE)
    path = folder / f"{data.name}_{size}px_{name}.npy"
    if not path.exists():
        begin = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        asked = write_features(Teacher(device), data, views, size, device, unfinished)
        unfinished.replace(path)
        rate = asked / (time.monotonic() - begin)
        print(f"teacher: {name} of {data.name}: {rate:.0f} images/s", flush=True)
    return np.load(path, mmap_mode="r")
