"""The deployed network with time stamps between its steps.

The marks are nodes in the network's own TorchScript graph, executed in the call that answers an image: per step two
appends to a list and one reading of the clock, one to three microseconds. Operators, their order and their memory
are those of the network without marks.
"""

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import Block, Graph, Node, Value

from pi_dynn.runtime.engines import frozen_forward
from pi_dynn.runtime.manifest import Manifest
from pi_dynn.runtime.steps import Step, method_calls, operation_steps, part_steps

END = -1  # the mark after the last step
PART = "part of the network: "  # the prefix of the constants that name parts while a graph is inlined


class StepTime(NamedTuple):
    """The times of a step: its index in `TimedNetwork.steps`, start and stop in ns of TorchScript's clock."""

    step: int
    start_ns: int
    stop_ns: int


class TimedRun(NamedTuple):
    """One answer: its exit, and its marks as alternating step numbers and times."""

    exit_index: int
    marks: list[int]

    @property
    def times(self) -> list[StepTime]:
        """The times of its steps."""
        numbers, times_ns = self.marks[::2], self.marks[1::2]
        spans = zip(numbers, pairwise(times_ns), strict=False)  # the end mark begins no step
        return [StepTime(number, start, stop) for number, (start, stop) in spans]


class TimedNetwork:
    """A network with marks between its steps. Attribute: steps, in the order of an answer at full depth.

    It shares its weights with `network`, which is not changed. With `inside`, steps are the operations of each step.
    """

    def __init__(self, network: torch.jit.ScriptModule, manifest: Manifest, inside: bool = False) -> None:
        self._timed, self.steps = with_marks(network, manifest.blocks, _time_mark, inside)
        self._marked, _ = with_marks(network, manifest.blocks, _tensor_mark, inside)

    def run(self, x: Tensor, thresholds: list[float]) -> TimedRun:
        """Answer one image (1, 3, H, W); returns its exit and the times of its steps."""
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            (_, exit_index, _), marks = self._timed(x, thresholds, [])
        return TimedRun(exit_index, marks)

    def run_marked(self, x: Tensor, thresholds: list[float]) -> None:
        """Answer one image; a step begins where `aten::scalar_tensor` is called with its number.

        A dispatch mode around this call can so assign every operator to its step.
        """
        with torch.no_grad(), torch.jit.optimized_execution(False):
            self._marked(x, thresholds, [])


MakeMark = Callable[[Graph, Value, int], list[Node]]  # (graph, list of marks, number of the step) -> nodes


def with_marks(
    network: torch.jit.ScriptModule, blocks: list[int], make_mark: MakeMark, inside: bool = False
) -> tuple[Callable[..., Any], list[Step]]:
    """The frozen forward method as a function (self, x, thresholds, marks) -> (answer, marks), and its steps."""
    frozen = _frozen_with_names(network)
    graph: Graph = frozen.graph.copy()
    marks = graph.addInput("marks")
    marks.setType(torch._C.ListType.ofInts())
    steps: list[Step] = []
    for block in _all_blocks(graph):
        for part, nodes in _parts_of(block):
            boundaries = part_steps(part, blocks, nodes)
            if inside:
                starts = [*(nodes.index(node) for node, _ in boundaries), len(nodes)]
                ranges = zip(boundaries, pairwise(starts), strict=True)
                boundaries = [one for (_, step), (i, j) in ranges for one in operation_steps(step, nodes[i:j])]
            for node, step in boundaries:
                _insert(make_mark(graph, marks, len(steps)), node)
                steps.append(step)
    _insert(make_mark(graph, marks, END), graph.return_node())
    graph.registerOutput(marks)
    graph.makeMultiOutputIntoTuple()
    graph.lint()
    run = torch._C._create_function_from_graph("network_with_marks", graph)
    return functools.partial(run, frozen._c), steps


def _frozen_with_names(network: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The network frozen for one image as in a session, plus a node before each part that holds its name."""
    graph: Graph = network.graph
    named: list[Node] = []
    try:
        for node, part in method_calls(graph):
            # TorchScript: only a node with a side effect is still in its place after freezing.
            text = _constant(graph, PART + part)
            text.insertBefore(node)
            shown = graph.create("prim::Print", list(text.outputs()), 0)
            shown.insertBefore(node)
            named += [shown, text]
        return frozen_forward(network)
    finally:
        for node in named:
            node.destroy()


def _parts_of(block: Graph | Block) -> list[tuple[str, list[Node]]]:
    """The parts that begin in a block: the name and the nodes of each. Removes the nodes with names."""
    parts: list[tuple[str, list[Node]]] = []
    for node in list(block.nodes()):
        if node.kind() == "prim::Print":
            parts.append((str(next(iter(node.inputs())).toIValue()).removeprefix(PART), []))
            node.destroy()
        elif parts:
            parts[-1][1].append(node)
    return parts


def _all_blocks(block: Graph | Block) -> list[Graph | Block]:
    """A block and all blocks inside it, in the order in which they run."""
    inside = [inner for node in block.nodes() for inner in node.blocks()]
    return [block, *(deep for inner in inside for deep in _all_blocks(inner))]


def _insert(nodes: list[Node], before: Node) -> None:
    for node in nodes:
        node.insertBefore(before)


def _constant(graph: Graph, value: int | str | None) -> Node:
    """A node that holds a constant; one that holds None has no value."""
    node = graph.create("prim::Constant", [], 1)
    kinds = {int: torch._C.IntType.get(), str: torch._C.StringType.get(), type(None): torch._C.NoneType.get()}
    if isinstance(value, str):
        node.s_("value", value)
    elif value is not None:
        node.i_("value", value)
    next(iter(node.outputs())).setType(kinds[type(value)])
    return node


def _append(graph: Graph, marks: Value, value: Value) -> Node:
    node = graph.create("aten::append", [marks, value], 1)
    next(iter(node.outputs())).setType(marks.type())
    return node


def _time_mark(graph: Graph, marks: Value, number: int) -> list[Node]:
    """Nodes that add the number of a step and the time to the list of marks."""
    constant, clock = _constant(graph, number), graph.create("prim::TimePoint", [], 1)
    reading = next(iter(clock.outputs()))
    reading.setType(torch._C.IntType.get())
    return [constant, _append(graph, marks, next(iter(constant.outputs()))), clock, _append(graph, marks, reading)]


def _tensor_mark(graph: Graph, marks: Value, number: int) -> list[Node]:
    """Nodes that make a tensor of the number of a step, for a dispatch mode."""
    constant, none = _constant(graph, number), _constant(graph, None)
    nothing = next(iter(none.outputs()))
    inputs = [next(iter(constant.outputs())), *[nothing] * 4]  # dtype, layout, device, pin_memory
    return [constant, none, graph.create("aten::scalar_tensor", inputs, 1)]
