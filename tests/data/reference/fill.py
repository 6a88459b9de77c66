"""The fixed rule that filled the networks of the reference cases in this folder.

A case records what the public code computes with weights that depend on nothing but their key and shape.
Whoever has the same keys can fill a network alike and compare. Needs numpy's frozen RandomState stream.
"""

import functools
import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent
# added as they are: no fan-in to normalise by
TOKENS = ("cls_token", "dist_token", "pos_embed", "attention_biases")
ATOL = 1e-5  # float32 costs a few 1e-7, a wrong activation function 1e-4


def load_case(name: str) -> dict:
    """One reference case as recorded."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def normal(name: str, shape) -> np.ndarray:
    """Standard normal float64 numbers that depend on `name` and `shape` alone."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))


def case_input(case: dict) -> Tensor:
    """The input of a case, float32."""
    return torch.from_numpy(normal(case["input"]["name"], case["input"]["shape"]).astype(np.float32)) * case[
        "input"
    ].get("scale", 1.0)


@functools.cache  # most cases share most of their weights
def filled_value(key: str, shape: tuple[int, ...], var_scale: float = 1.0) -> np.ndarray:
    """The float32 value of the parameter or buffer `key`; a case may scale the running variances."""
    value = normal(key, shape)
    if key.endswith("running_var"):
        value = var_scale * (0.5 + np.abs(value))
    elif key.endswith("complex_weight"):
        value = 0.5 * value
    elif value.ndim >= 2 and not key.endswith(TOKENS):
        value = value / np.sqrt(np.prod(value.shape[1:]))
    else:
        value = 0.1 * value + (value.ndim < 2 and key.endswith(".weight"))
    return value.astype(np.float32)


def fill(model: nn.Module, **options: float) -> None:
    """Fill `model` in place; `options` are those of `filled_value`. Integers, tables and counters, are kept."""
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(filled_value(key, tuple(tensor.shape), **options)))


def digest(model: nn.Module, keys: list[str]) -> str:
    """SHA-256 over the values of `keys`, in that order, integers left out."""
    values = [value for value in map(model.state_dict().get, keys) if value.is_floating_point()]
    return hashlib.sha256(b"".join(value.numpy().astype("<f4").tobytes() for value in values)).hexdigest()
