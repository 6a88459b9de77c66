"""The steps of a deployed network, found in its TorchScript graph.

The network in a bundle is frozen, and its graphs have no names. The calls of its parts are still there (stem,
stages, heads, gates); inside a part steps are found by the structure of the graph: a block of a residual network
begins where only one tensor is live, a GFNet block changes from filter to MLP at its second norm, and the product of
a head is its last one. A part with another structure is one step.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch._C import Block, Graph, Node, Value

PRODUCTS = frozenset(
    {"quantized::linear_dynamic", "aten::linear", "aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}
    | {"aten::conv2d", "aten::convolution", "aten::_convolution"}
)
VIEWS = frozenset({"aten::view", "aten::reshape", "aten::flatten", "aten::permute", "aten::transpose"})
OPERATIONS = {  # operators that begin an operation of a step; others go on with the one before
    "layer_norm": "norm",
    "linalg_vector_norm": "norm",
    "gelu": "GELU",
    "softmax": "softmax",
    "log_softmax": "softmax",
    "topk": "top-k",
    "special_entr": "entropy",
    "addmv": "linear",
    "mean": "pooling",
    "adaptive_avg_pool2d": "pooling",
    "max_pool2d": "pooling",
    "logsumexp": "log-sum-exp",
    "Float": "comparison",
    "add": "addition",
    "quantize_per_tensor": "to int8",
    "dequantize": "from int8",
}
STATIC_INT8_PRODUCTS = frozenset(
    {"quantized::linear", "quantized::linear_relu", "quantized::conv2d", "quantized::conv2d_relu"}
)
PRODUCT_OPERATIONS = {  # those not named are linear
    "conv2d": "convolution",
    "convolution": "convolution",
    "_convolution": "convolution",
    "conv2d_relu": "convolution",
    "bmm": "pooling",
}


class Step(NamedTuple):
    """One step: its kind, the block it belongs to or follows (None before the first), and the operation inside it.

    `operation` is empty for a whole step.
    """

    kind: str  # patch embedding, tokens, position, stem, filter, MLP, block, stage, exit norm, head, gate, final head
    block_index: int | None
    operation: str = ""


class Boundary(NamedTuple):
    """A step and the node of the graph it begins at."""

    node: "Node"
    step: Step


def method_calls(block: "Graph | Block") -> list[tuple["Node", str]]:
    """Calls of parts in a graph not yet inlined, nested ones too, in order: the node and the part's dotted name."""
    calls = []
    for node in block.nodes():
        if node.kind() == "prim::CallMethod":
            calls.append((node, _attribute_path(next(iter(node.inputs())))))
        for inner in node.blocks():
            calls += method_calls(inner)
    return calls


def _attribute_path(value: "Value") -> str:
    names: list[str] = []
    node = value.node()
    while node.kind() == "prim::GetAttr":
        names.append(node.s("name"))
        node = next(iter(node.inputs())).node()
    return ".".join(reversed(names))


def part_steps(part: str, blocks: list[int], nodes: list["Node"]) -> list[Boundary]:
    """The steps of one inlined part; the first begins at its first node.

    `part` is a name such as "stages.0"; `blocks` are the blocks before its exits, the last answer
    included; `nodes` are the nodes of the part.
    """
    if not nodes:  # a stem without operators
        return []
    name, _, number = part.partition(".")
    stage = int(number) if number else len(blocks) - 1
    first = blocks[stage - 1] + 1 if stage > 0 else 0
    if name == "stem":
        return _stem_steps(nodes)
    if name in ("stages", "last_stage"):
        return _stage_steps(nodes, range(first, blocks[stage] + 1))
    if name == "gates":
        return [Boundary(nodes[0], Step("gate", blocks[stage]))]
    return _head_steps(nodes, blocks[stage], "final head" if name == "last_head" else "head")


def operation_steps(step: Step, nodes: list["Node"]) -> list[Boundary]:
    """The operations inside a step with these nodes, for one image: norm, linear, GELU, forward transform, ..."""
    operators = _single_image_operators(nodes)
    products = [i for i, node in enumerate(operators) if node.kind() in PRODUCTS | STATIC_INT8_PRODUCTS]
    boundaries: list[Boundary] = []
    for place, node in enumerate(operators):
        operation = _operation(step.kind, node, products, place)
        if not boundaries:  # what comes before the first operator is part of it
            boundaries.append(Boundary(nodes[0], step._replace(operation=operation or "preparation")))
        elif operation and operation != boundaries[-1].step.operation:
            boundaries.append(Boundary(node, step._replace(operation=operation)))
    return boundaries or [Boundary(nodes[0], step)]


def _operation(kind: str, node: "Node", products: list[int], place: int) -> str | None:
    """The operation of an operator, None if it goes on with that of the one before."""
    name = node.kind().split("::")[1].rstrip("_")
    half = len(products) // 2
    if kind == "filter" and half:  # half of the products lead to the frequencies, half lead back
        if place < products[0]:
            return "norm"
        if place <= products[half - 1]:
            return "forward transform"
        return "weight" if place < products[half] else "inverse transform"
    if place not in products:
        return "residual" if name == "add" and kind == "MLP" else OPERATIONS.get(name)
    number = f" {products.index(place) + 1}" if half and kind in ("MLP", "stage", "block") else ""
    return PRODUCT_OPERATIONS.get(name, "linear") + number


def _single_image_operators(nodes: list["Node"]) -> list["Node"]:
    """The operators on tensors that run for a batch of one, in order, without those of other parts."""
    operators = []
    for node in nodes:
        if node.kind() == "prim::If":  # the first branch is that of one image
            branches = [list(block.nodes()) for block in node.blocks()]
            if not any(inner.kind() == "prim::Print" for branch in branches for inner in branch):
                operators += _single_image_operators(branches[0])
        elif node.kind() == "aten::Float" or (
            node.kind().startswith(("aten::", "quantized::"))
            and any(str(output.type()) == "Tensor" for output in node.outputs())
        ):
            operators.append(node)
    return operators


def _stem_steps(nodes: list["Node"]) -> list[Boundary]:
    """Patch embedding up to its product, then positions (an addition) and prefix tokens (a concatenation)."""
    product = _last(nodes, _computes_product)
    after = [] if product is None else nodes[product + 1 :]
    kinds = {"aten::add": "position", "aten::cat": "tokens"}
    boundaries = [(node, kinds[node.kind()]) for node in after if node.kind() in kinds]
    if not boundaries or any(_contains(node, _is_convolution) for node in nodes):
        return [Boundary(nodes[0], Step("stem", None))]
    return [
        Boundary(nodes[0], Step("patch embedding", None)),
        *(Boundary(node, Step(kind, None)) for node, kind in boundaries),
    ]


def _stage_steps(nodes: list["Node"], blocks: range) -> list[Boundary]:
    """Filter and MLP of every block if the stage can be divided into its blocks, else the whole stage."""
    starts = [0, *(i + 1 for i in lone_tensor_ends(nodes))]
    if len(starts) != len(blocks):
        kind = "block" if len(blocks) == 1 else "stage"
        return [Boundary(nodes[0], Step(kind, blocks[-1]))]
    boundaries = []
    for block, (start, stop) in zip(blocks, pairwise([*starts, len(nodes)]), strict=True):
        norms = [i for i in range(start, stop) if nodes[i].kind() in ("aten::layer_norm", "aten::native_layer_norm")]
        # After an exit the first norm may be missing, because freezing merged it with the exit's equal norm.
        if norms and norms[-1] > start and len(norms) <= 2:
            boundaries += [
                Boundary(nodes[start], Step("filter", block)),
                Boundary(nodes[norms[-1]], Step("MLP", block)),
            ]
        else:
            boundaries.append(Boundary(nodes[start], Step("block", block)))
    return boundaries


def _head_steps(nodes: list["Node"], block: int, kind: str) -> list[Boundary]:
    """Norm and pooling, then the product that gives the logits."""
    product = _last(nodes, _computes_product)
    if product is None or not any(node.kind().startswith("aten::") for node in nodes[:product]):
        return [Boundary(nodes[0], Step(kind, block))]
    norm = "final norm" if kind == "final head" else "exit norm"
    return [Boundary(nodes[0], Step(norm, block)), Boundary(nodes[product], Step(kind, block))]


def lone_tensor_ends(nodes: list["Node"]) -> list[int]:
    """Positions before the last at which exactly one computed tensor is live, and the node is not a view.

    In a residual network these are the ends of blocks, and never inside one.
    """
    last_use = {name: i for i, node in enumerate(nodes) for name in _tensors_read(node)}
    local_names = {value.debugName() for node in nodes for value in node.outputs()}
    live = last_use.keys() - local_names  # the inputs of the part
    ends = []
    for i, node in enumerate(nodes[:-1]):
        outputs = {value.debugName() for value in node.outputs() if last_use.get(value.debugName(), -1) > i}
        live = {name for name in live if last_use[name] > i} | outputs
        if live and live == outputs and node.kind() not in VIEWS:
            ends.append(i)
    return ends


def _tensors_read(node: "Node") -> set[str]:
    """Names of the computed tensors a node reads from outside, those its blocks read included."""
    values = list(node.inputs())
    names: set[str] = set()
    outputs: set[str] = set()
    for block in node.blocks():
        for inner in block.nodes():
            names |= _tensors_read(inner)
            outputs |= {value.debugName() for value in inner.outputs()}
        values += block.outputs()
    fixed = ("prim::Constant", "prim::GetAttr")
    names |= {v.debugName() for v in values if str(v.type()) == "Tensor" and v.node().kind() not in fixed}
    return names - outputs


def _contains(node: "Node", test: Callable[[str], bool]) -> bool:
    return test(node.kind()) or any(_contains(inner, test) for block in node.blocks() for inner in block.nodes())


def _computes_product(node: "Node") -> bool:
    return _contains(node, PRODUCTS.__contains__)


def _is_convolution(kind: str) -> bool:
    return "conv" in kind


def _last(nodes: list["Node"], test: Callable[["Node"], bool]) -> int | None:
    return next((i for i in reversed(range(len(nodes))) if test(nodes[i])), None)
