"""The calls of layers up to each exit of a network, recorded with forward hooks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pi_dynn.errors import ModelError


@dataclass(frozen=True)
class LayerCall:
    """One call of one layer. Shapes are those of its tensor arguments and results, batch of one."""

    name: str
    module: nn.Module
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    exit_index: int  # the first exit, zero-based, that needs this call
    is_check: bool  # made for that exit alone: `forward` does without it


@dataclass(frozen=True)
class CallTrace:
    """All calls of one `forward_exits`, in order, and the blocks its answers come after."""

    blocks: tuple[int, ...]
    calls: tuple[LayerCall, ...]


class _Recorder:
    """Hooks on every module. Calls inside a layer that is taken as a whole are not recorded."""

    def __init__(self, model: nn.Module, taken_whole: Callable[[nn.Module], bool]) -> None:
        self.calls: list[tuple[str, nn.Module, tuple, tuple]] = []
        self.vectors: list[tuple[Tensor, int]] = []  # (B, classes) tensors a module read or made, calls so far
        self._whole = taken_whole
        self._inside = 0
        self._hooks = []
        for name, module in model.named_modules():
            if module is not model:
                self._hooks.append(module.register_forward_pre_hook(self._enter))
                self._hooks.append(module.register_forward_hook(self._leave(name)))

    def _enter(self, module: nn.Module, inputs: tuple) -> None:
        self._inside += self._whole(module)

    def _leave(self, name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            whole = self._whole(module)
            self._inside -= whole
            outputs = output if isinstance(output, tuple | list) else (output,)
            # an empty Sequential has no children either, and is no layer
            leaf = next(module.children(), None) is None and not isinstance(module, nn.Sequential)
            if self._inside == 0 and (whole or leaf):
                self.calls.append((name, module, _shapes(inputs), _shapes(outputs)))
            for tensor in (*inputs, *outputs):
                if isinstance(tensor, Tensor) and tensor.dim() == 2:
                    self.vectors.append((tensor, len(self.calls)))

        return hook

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def trace_calls(model: nn.Module, image_size: int, taken_whole: Callable[[nn.Module], bool]) -> CallTrace:
    """The calls of one `model.forward_exits` on an empty image.

    Recorded are layers without children and those `taken_whole`, whose children are then left out. An exit
    ends with the last layer that makes or reads its logits. Its check is what `model.forward` does not call.

    Raises: ModelError if the network has no `forward_exits`, computes the logits of an exit outside any
    module, or runs other layers in `forward` than in `forward_exits`.
    """
    if not hasattr(model, "forward_exits"):
        raise ModelError(f"{type(model).__name__} has no forward_exits: build it with create_model or attach_exits")
    parameter = next(model.parameters())
    x = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # a batch norm in training would learn from the empty image
    try:
        with torch.no_grad():
            recorder, answers = _record(model, model.forward_exits, x, taken_whole)
            # Without exits all calls are those of the trunk.
            trunk = recorder if len(answers) == 1 else _record(model, model.forward, x, taken_whole)[0]
    finally:
        for module, training in modes:
            module.training = training
    ends = [_end_of_exit(recorder, block, logits) for block, logits, _ in answers[:-1]]
    ends.append(len(recorder.calls))
    checks = _not_in(trunk.calls, recorder.calls)
    if checks.count(False) != len(trunk.calls):
        raise ModelError(f"{type(model).__name__}: forward and forward_exits do not run the same layers")
    calls = []
    for position, ((name, module, inputs, outputs), is_check) in enumerate(zip(recorder.calls, checks, strict=True)):
        exit_index = next(k for k, end in enumerate(ends) if position < end)
        calls.append(LayerCall(name, module, inputs, outputs, exit_index, is_check))
    return CallTrace(tuple(block for block, _, _ in answers), tuple(calls))


def _record(model: nn.Module, run: Callable, x: Tensor, taken_whole: Callable) -> tuple[_Recorder, object]:
    recorder = _Recorder(model, taken_whole)
    try:
        return recorder, run(x)
    finally:
        recorder.remove()


def _end_of_exit(recorder: _Recorder, block: int, logits: Tensor) -> int:
    ends = [count for tensor, count in recorder.vectors if tensor is logits]
    if not ends:
        raise ModelError(f"no module makes or reads the logits of the exit after block {block}: compute them in one")
    return max(ends)


def _not_in(trunk: list[tuple], calls: list[tuple]) -> list[bool]:
    """Whether each call is not among the trunk's calls, which come in the same order."""
    extra, position = [], 0
    for name, *_ in calls:
        in_trunk = position < len(trunk) and trunk[position][0] == name
        position += in_trunk
        extra.append(not in_trunk)
    return extra


def _shapes(values: tuple | list) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(value.shape) for value in values if isinstance(value, Tensor))
