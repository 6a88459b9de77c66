"""The deployed network with the time taken between its steps.

The marks stand inside the network's own TorchScript graph and are read in the same call that answers an
image: two additions to a list and one reading of the clock for every step, one to three microseconds. Nothing
else changes: the operators, their order and their memory are those of the network that answers.
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
from pi_dynn.runtime.steps import Step, method_calls, part_steps

END = -1  # the mark behind the last step
PART = "part of the network: "  # begins the constants that name the parts while a graph is inlined


class StepTime(NamedTuple):
    """When a step ran: its number in `TimedNetwork.steps`, start and stop in ns of a clock of its own."""

    step: int
    start_ns: int
    stop_ns: int


class TimedRun(NamedTuple):
    """One answer: the exit it left at, and the marks it passed as numbers of steps and times in turn."""

    exit_index: int
    marks: list[int]

    @property
    def times(self) -> list[StepTime]:
        """The steps it took."""
        numbers, times_ns = self.marks[::2], self.marks[1::2]
        spans = zip(numbers, pairwise(times_ns), strict=False)  # the end mark begins nothing
        return [StepTime(number, start, stop) for number, (start, stop) in spans]


class TimedNetwork:
    """A network with marks between its steps. Attribute: steps, in the order a full answer takes them.

    Shares its weights with `network`, which stays as it is.
    """

    def __init__(self, network: torch.jit.ScriptModule, manifest: Manifest) -> None:
        self._timed, self.steps = with_marks(network, manifest.blocks, _time_mark)
        self._marked, _ = with_marks(network, manifest.blocks, _tensor_mark)

    def run(self, x: Tensor, thresholds: list[float]) -> TimedRun:
        """Answer one image (1, 3, H, W) and tell when each step ran."""
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            (_, exit_index, _), marks = self._timed(x, thresholds, [])
        return TimedRun(exit_index, marks)

    def run_marked(self, x: Tensor, thresholds: list[float]) -> None:
        """Answer one image; a step begins where `aten::scalar_tensor` is called with its number.

        A dispatch mode around this call sees every operator of every step, which is how they are counted.
        """
        with torch.no_grad(), torch.jit.optimized_execution(False):
            self._marked(x, thresholds, [])


MakeMark = Callable[[Graph, Value, int], list[Node]]  # (graph, list of marks, number of the step) -> nodes


def with_marks(
    network: torch.jit.ScriptModule, blocks: list[int], make_mark: MakeMark
) -> tuple[Callable[..., Any], list[Step]]:
    """The frozen forward method as a function (self, x, thresholds, marks) -> (answer, marks), and its steps."""
    frozen = _frozen_with_names(network)
    graph: Graph = frozen.graph.copy()
    marks = graph.addInput("marks")
    marks.setType(torch._C.ListType.ofInts())
    steps: list[Step] = []
    for block in _all_blocks(graph):
        for part, nodes in _parts_of(block):
            for node, step in part_steps(part, blocks, nodes):
                _insert(make_mark(graph, marks, len(steps)), node)
                steps.append(step)
    _insert(make_mark(graph, marks, END), graph.return_node())
    graph.registerOutput(marks)
    graph.makeMultiOutputIntoTuple()
    graph.lint()
    run = torch._C._create_function_from_graph("network_with_marks", graph)
    return functools.partial(run, frozen._c), steps


def _frozen_with_names(network: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The network frozen for one image, as it answers, but for a node in front of each part that names it."""
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
    """The parts that begin in a block: the name of each, and its nodes up to the next one. Takes the names out."""
    parts: list[tuple[str, list[Node]]] = []
    for node in list(block.nodes()):
        if node.kind() == "prim::Print":
            parts.append((str(next(iter(node.inputs())).toIValue()).removeprefix(PART), []))
            node.destroy()
        elif parts:
            parts[-1][1].append(node)
    return parts


def _all_blocks(block: Graph | Block) -> list[Graph | Block]:
    """A block and all inside it, in the order they run."""
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
    """Nodes that make a tensor of the number of a step, for whoever watches the dispatcher."""
    constant, none = _constant(graph, number), _constant(graph, None)
    nothing = next(iter(none.outputs()))
    inputs = [next(iter(constant.outputs())), *[nothing] * 4]  # dtype, layout, device, pin_memory
    return [constant, none, graph.create("aten::scalar_tensor", inputs, 1)]
