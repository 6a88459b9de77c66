"""What the code in a TorchScript file may do: compute, and nothing else. It is read here before torch sees it.

TorchScript keeps a network's code as text in a part of Python's syntax. Every operator named in it has to be one of
ALLOWED, which read and write no file, start nothing and run no other code. A loop runs over a list that is there.
Code that does not fit is refused with its name. It can still ask for much memory or take long.
"""

import ast
import re
from collections.abc import Mapping, Set
from contextlib import suppress

from pi_dynn.errors import BundleError

# What torch.jit.load looks at, without the archive's own folder.
_PLAIN_NAME = re.compile(
    r"(data|constants)/\d+|data\.pkl|constants\.pkl|version|byteorder|\.data/serialization_id|\.format_version"
    r"|\.storage_alignment|\.data/version|code/[\w./]+\.py"
)
_WORDS = {
    *("ClassDef", "FunctionDef", "arguments", "arg", "Module", "Pass", "Expr", "Return", "Assign", "AnnAssign"),
    *("If", "For", "Call", "keyword", "Attribute", "Name", "Constant", "Subscript", "List", "Tuple", "Dict", "IfExp"),
    *("UnaryOp", "USub", "Not", "Load", "Store", "Slice", "Delete", "Del", "Assert", "Raise", "Break", "Continue"),
}
_BUILTINS = {
    *("getattr", "annotate", "unchecked_cast", "uninitialized", "range", "float", "int", "bool", "str", "isinstance"),
    *("len", "tuple", "list", "min", "max", "abs", "round"),
}
_NAMES = _BUILTINS | {
    *("torch", "ops", "__torch__", "CONSTANTS", "__annotations__", "Module", "NamedTuple", "Final", "NoneType", "inf"),
    *("nan", "Tensor", "Tuple", "List", "Dict", "Optional", "Union", "Any", "number", "Device", "complex"),
}
_CLASSES = re.compile(r"__torch__\.torch\.classes\.quantized(\.(LinearPackedParamsBase|Conv2dPackedParamsBase))?")
ATTEMPTS = 5  # to parse a file
_LARGEST = 2**24  # of a whole number in the code, but for the end of a slice
_ENDS = (2**63 - 1, 2**63)  # the second is that of the least number, whose sign stands apart

_ATEN = """
    abs absolute acos add addbmm addcdiv addcmul addmm addmv addr all allclose amax amin aminmax any arange argmax
    argmin argsort as_strided asin atan atan2 baddbmm bitwise_and bitwise_not bitwise_or bitwise_xor bmm
    broadcast_tensors bucketize cat ceil channel_shuffle chunk clamp clamp_max clamp_min clone complex concat conj
    contiguous copy cos cosh count_nonzero cross cumprod cumsum deg2rad detach diag diag_embed diagonal diff dim div
    divide dot dropout einsum embedding eq equal erf erfc exp exp2 expand expand_as expm1 eye fill flatten flip
    floor floor_divide floordiv fmod frac full full_like gather ge glu group_norm gt hardshrink hardsigmoid
    hardswish hardtanh imag index index_add index_copy index_fill index_put index_select instance_norm inverse
    is_complex is_floating_point isclose isfinite isinf isnan item kron layer_norm le leaky_relu lerp linalg_norm
    linalg_vector_norm linear linspace log log10 log1p log2 log_softmax logical_and logical_not logical_or
    logical_xor logsumexp lt masked_fill masked_select matmul max maximum mean median min minimum mm movedim mul
    multiply mv nan_to_num narrow ne neg negative new_full new_ones new_zeros nonzero norm numel one_hot ones
    ones_like outer pad permute pixel_shuffle pixel_unshuffle pow prelu prod quantile real reciprocal relu relu6
    remainder repeat repeat_interleave reshape reshape_as roll rot90 round rrelu rsqrt rsub scatter scatter_add
    searchsorted select selu sigmoid sign silu sin sinh size slice softmax softplus softshrink sort split
    split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum swapaxes t take take_along_dim tan tanh
    tensor tensor_split tensordot threshold tile to topk transpose tril triu true_divide trunc type_as unbind
    unflatten unfold unique_consecutive unsqueeze upsample_bilinear2d upsample_nearest2d var var_mean vdot view
    view_as view_as_complex view_as_real where zeros zeros_like gelu elu celu mish logit logsigmoid log_sigmoid
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d max_pool1d max_pool2d
    max_pool2d_with_indices batch_norm conv1d conv2d conv3d conv_transpose1d conv_transpose2d convolution
    _convolution scaled_dot_product_attention multi_head_attention_forward feature_dropout alpha_dropout fft_fft
    fft_fft2 fft_ifft fft_ifft2 fft_irfft fft_irfft2 fft_rfft fft_rfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn
    special_entr special_erf special_expit special_logit special_softmax special_log_softmax quantize_per_tensor
    quantize_per_channel dequantize int_repr q_scale q_zero_point append len extend insert pop clear reverse copy_
    list avg_pool3d max_pool3d adaptive_avg_pool3d im2col col2im grid_sampler upsample_bicubic2d upsample_linear1d
        format str percentFormat keys values items contains __and__ __or__ __xor__ __not__ __is__ __isnot__ __contains__
    __getitem__ __range_length __derive_index Int Float Bool FloatImplicit IntImplicit ScalarImplicit device dtype
    is_grad_enabled float32 float64 int32 int64 uint8 int8 qint8 quint8 qint32 bool strided contiguous_format
    channels_last
"""
ALLOWED = frozenset(_ATEN.split())
_PRIM = """
    RaiseException device dtype data min max abs NumToTensor isinstance unchecked_cast is_cuda is_quantized TupleIndex
    requires_grad layout itemsize unchecked_unwrap_optional
"""
_QUANTIZED = """
    linear linear_relu linear_dynamic linear_relu_dynamic linear_unpack linear_prepack conv2d conv2d_relu conv2d_add
    conv2d_add_relu conv2d_prepack conv2d_unpack conv2d_dynamic add add_relu mul mul_relu mul_scalar add_scalar cat
    cat_relu batch_norm2d batch_norm2d_relu relu6 hardswish sigmoid leaky_relu elu layer_norm softmax matmul max_pool2d
"""
_OPS = {"aten": ALLOWED, "prim": frozenset(_PRIM.split()), "quantized": frozenset(_QUANTIZED.split())}


def check_files(files: Mapping[str, bytes], name: str) -> None:
    """Refuse a TorchScript archive, its files by name without the archive's folder, unless it computes and no more.

    Raises: BundleError that names the file or the operator; `name` begins the message.
    """
    if "constants.pkl" not in files:
        raise BundleError(f"{name}: is no TorchScript archive of today's form; export it again")
    for file, content in files.items():
        if not _PLAIN_NAME.fullmatch(file):
            raise BundleError(f"{name}: holds {file!r}, which a network has no use for; --trust loads it anyway")
        if file.endswith(".py"):
            complaint = complaint_about(content)
            if complaint:
                raise BundleError(f"{name}: its code {complaint}; --trust runs it anyway")


def complaint_about(code: bytes) -> str | None:
    """What a file of TorchScript may not do, in words; None if it computes and no more."""
    try:
        text = code.decode("ascii")
        if "#" in text or re.search(r"[^\n\x20-\x7e]", text):  # what TorchScript and Python might read differently
            return "holds comments or control characters, which torch does not write"
        tree = _parsed(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        return f"cannot be read ({error})"
    nodes = list(ast.walk(tree))
    inner = {id(node.value) for node in nodes if type(node) is ast.Attribute}
    assigned = {node.id for node in nodes if type(node) is ast.Name and type(node.ctx) is ast.Store}
    assigned |= {node.arg for node in nodes if type(node) is ast.arg}
    complaints = (_complaint(node, id(node) in inner, assigned) for node in nodes)
    return next(filter(None, complaints), None)


def _parsed(text: str) -> ast.Module:
    """The syntax tree of a text. Raises: SyntaxError, ValueError, RecursionError, MemoryError.

    CPython up to 3.12 counts the depth of all threads together and may end in a SystemError, which says nothing of the
    text (gh-106905): then it is asked again.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(SystemError):
            return ast.parse(text)
    try:
        return ast.parse(text)
    except SystemError as error:
        raise ValueError(str(error)) from error


def _complaint(node: ast.AST, is_inner: bool, assigned: set[str]) -> str | None:
    """What is wrong with one node; `is_inner` says that a longer chain of attributes holds it.

    `assigned` are the names that the code gives a value, or takes as an argument.
    """
    if type(node).__name__ not in _WORDS:
        return f"uses {type(node).__name__}, which a network has no use for"
    if isinstance(node, ast.Constant) and type(node.value) is int and _LARGEST < node.value not in _ENDS:
        return f"holds the number {node.value}"
    if isinstance(node, ast.Name):
        return _complaint_about_name(node.id, is_inner, assigned)
    if isinstance(node, ast.Attribute) and not is_inner:
        return _complaint_about_chain(_chain(node))
    if isinstance(node, ast.For) and not _over_a_list(node.iter):
        return f"loops over {ast.unparse(node.iter)}, whose end is not known"
    return None


def _complaint_about_name(name: str, is_inner: bool, assigned: set[str]) -> str | None:
    """What is wrong with a name, called or not: a function can be given another name first."""
    if name in ("torch", "ops") and not is_inner:
        return f"hands on {name!r} as a whole"
    return None if name in _NAMES or name in assigned else f"calls {name!r}"


def _chain(node: ast.Attribute) -> list[str]:
    """The names of a chain of attributes, first its root; an empty root where that is no name."""
    names: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        names.insert(0, inner.attr)
        inner = inner.value
    return [inner.id if isinstance(inner, ast.Name) else "", *names]


def _complaint_about_chain(chain: list[str]) -> str | None:
    """What is wrong with a chain of attributes such as torch.add or ops.quantized.conv2d."""
    root, *names = chain
    if root == "torch" and not (len(names) == 1 and _is_in(names[0], ALLOWED)):
        return f"calls the operator {'.'.join(chain)!r}"
    if root == "ops" and not (len(names) == 2 and _is_in(names[1], _OPS.get(names[0], frozenset()))):
        return f"calls the operator {'.'.join(chain)!r}"
    if "classes" in names and not _CLASSES.fullmatch(".".join(chain)):
        return f"uses the class {'.'.join(chain)!r}"
    return None


def _is_in(name: str, operators: Set[str]) -> bool:
    """Whether an operator, or the one that it is the in-place form of, is among them."""
    return name in operators or name.removesuffix("_") in operators


def _over_a_list(end: ast.expr) -> bool:
    """Whether a loop's range is a list's length, or that less a number: known before it begins."""
    text = ast.unparse(end)
    return re.fullmatch(r"range\((torch\.len\(\w+\)|torch\.sub\(torch\.len\(\w+\), \d+\)|\d{1,4})\)", text) is not None
