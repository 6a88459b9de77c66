"""The inputs of the exit heads of a frozen backbone, computed once and cached on disk.

Every head is a linear layer on a pooled feature vector. With these in memory an epoch of heads and gates takes
a fraction of a second instead of a pass through the network.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.files import write_atomically

EXIT_PARTS = ("intermediate_heads", "intermediate_heads_dist", "gates")


def exit_heads(model: nn.Module) -> list[list[nn.Module]]:
    """The linear heads of every exit: one, or two whose answers are averaged.

    Raises: ModelError for a network without exits, or whose heads are not kept in `intermediate_heads`.
    """
    heads = getattr(model, "intermediate_heads", None)
    if heads is None or not len(heads):
        raise ModelError(
            f"{type(model).__name__} has no exit heads on pooled features: train its exits along with "
            "`pi-dynn train transfer --exits all`"
        )
    beside = getattr(model, "intermediate_heads_dist", None)
    return [[head] if beside is None else [head, beside[k]] for k, head in enumerate(heads)]


def head_logits(heads: list[nn.Module], inputs: list[Tensor]) -> Tensor:
    """Logits (B, classes) of one exit from the inputs of its heads, (B, C) each."""
    return sum(head(x) for head, x in zip(heads, inputs, strict=True)) / len(heads)


@dataclass(frozen=True)
class ExitFeatures:
    """Per exit and head the inputs (N, C); the frozen final answer's logits (N, classes); labels (N,)."""

    inputs: list[list[Tensor]]
    final: Tensor
    labels: Tensor

    def flat(self) -> tuple[Tensor, ...]:
        """Labels, final logits, then all inputs in order: the columns of a batch of the exits stage."""
        return (self.labels, self.final, *(x for exit_inputs in self.inputs for x in exit_inputs))


def regroup(flat: tuple[Tensor, ...], heads_per_exit: int) -> list[list[Tensor]]:
    """Inputs per exit and head from all of them in order."""
    return [list(flat[i : i + heads_per_exit]) for i in range(0, len(flat), heads_per_exit)]


@torch.no_grad()
def collect_features(model: nn.Module, parts: Iterable[tuple[Tensor, Tensor]]) -> ExitFeatures:
    """The features of batches of normalised images (B, 3, H, W) and labels (B,)."""
    heads = exit_heads(model)
    device = next(model.parameters()).device
    columns: list[list[list[Tensor]]] = [[[] for _ in exit_heads_] for exit_heads_ in heads]
    hooks = []
    for k, exit_heads_ in enumerate(heads):
        for j, head in enumerate(exit_heads_):
            hooks.append(
                head.register_forward_pre_hook(lambda _, inputs, to=columns[k][j]: to.append(inputs[0].float().cpu()))
            )
    final, labels = [], []
    model.eval()
    try:
        for x, y in parts:
            final.append(model.forward_exits(x.to(device))[-1][1].float().cpu())
            labels.append(y)
    finally:
        for hook in hooks:
            hook.remove()
    inputs = [[torch.cat(batches) for batches in exit_inputs] for exit_inputs in columns]
    return ExitFeatures(inputs, torch.cat(final), torch.cat(labels))


def backbone_sha256(model: nn.Module) -> str:
    """sha256 over all weights the cached features depend on: all but those of heads and gates."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if not key.startswith(EXIT_PARTS):
            digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cached_features(path: Path, key: dict, compute: Callable[[], ExitFeatures]) -> ExitFeatures:
    """Features from the file at `path` if it was written for the same `key`, else computed and written."""
    stamp = json.dumps(key, sort_keys=True)
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") == stamp:
                return _from_tensors({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError):
        pass  # none yet, or damaged: it is only a cache
    features = compute()
    tensors = {f"input.{k}.{j}": x for k, exit_inputs in enumerate(features.inputs) for j, x in enumerate(exit_inputs)}
    data = save({**tensors, "final": features.final, "labels": features.labels}, {"key": stamp})
    write_atomically(path, lambda stream: stream.write(data))
    return features


def _from_tensors(tensors: dict[str, Tensor]) -> ExitFeatures:
    places = [tuple(int(part) for part in name.split(".")[1:]) for name in tensors if name.startswith("input.")]
    exits, heads = max(k for k, _ in places) + 1, max(j for _, j in places) + 1
    inputs = [[tensors[f"input.{k}.{j}"] for j in range(heads)] for k in range(exits)]
    return ExitFeatures(inputs, tensors["final"], tensors["labels"])
