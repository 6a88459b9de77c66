"""`build_bundle`, which makes a bundle of a trained network."""

import copy
import io
import math
import warnings
from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import Tensor, nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.fuse import HeadOnMaps, fuse_norms
from pi_dynn.deploy.gfnet import deploy_gfnet, deploy_pyramid, linear_form
from pi_dynn.deploy.global_filter import SeparableFilter
from pi_dynn.deploy.network import EarlyExitNetwork, assemble
from pi_dynn.deploy.quant_linear import QuantLinear
from pi_dynn.deploy.scripting import script
from pi_dynn.deploy.static_quant import WORST_RELATIVE_ERROR as STATIC_LIMIT
from pi_dynn.deploy.static_quant import can_be_traced, quantise_products, quantise_statically
from pi_dynn.errors import ModelError
from pi_dynn.models.chain import ChainNetwork
from pi_dynn.models.gfnet import GFNet
from pi_dynn.models.gfnet_pyramid import GFNetPyramid
from pi_dynn.models.lsnet import LSNet
from pi_dynn.models.macs import count_macs
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engine_choice import self_test_answers
from pi_dynn.runtime.engines import available_engines, using_engine
from pi_dynn.runtime.manifest import INT8_STATIC, Manifest
from pi_dynn.runtime.torchscript import pack_bundle

# Attributes set after loading, by the runtime or an exporter, which freezing must preserve.
SET_AFTER_LOADING = {
    QuantLinear: ("packed", "reduce_range", "in_float", "weight_float"),
    SeparableFilter: ("whole_tensors",),
}
PRECISIONS = ("int8", INT8_STATIC, "fp32")
DEFAULT_THRESHOLD = 0.9  # of an exit for which none was chosen


def build_bundle(
    model: nn.Module,
    *,
    exits: Sequence[int],
    thresholds: Sequence[float],
    precision: str = "int8",
    labels: Sequence[str],
    preprocess: Preprocess,
    notes: dict | None = None,
    calibration: Tensor | None = None,
) -> Bundle:
    """The deploy form of a trained network, scripted, frozen and described.

    `exits` are blocks out of those the model was trained with, `thresholds` one value in 0..1 for each; an
    image leaves where the gate reaches it. The engine is chosen when the bundle is loaded, not here. "int8-static", the
    only int8 of convolutions, takes `calibration`: preprocessed images (N, 3, H, W) like those the network will see.

    Raises: ModelError for exits the model lacks, counts that do not fit together, or a precision it cannot have.
    """
    _check(model, exits, thresholds, precision, labels, preprocess)
    if (precision == INT8_STATIC) != (calibration is not None):
        raise ModelError(f"calibration images and precision={INT8_STATIC!r} go together: give both or neither")
    packed_engine = _packing_engine(precision)
    self_test: list = []
    if calibration is None:
        scripted, report = script_and_freeze(deploy_form(model, list(exits), precision, packed_engine)), {}
    else:
        scripted, report, self_test = _static_form(model, list(exits), calibration, packed_engine, STATIC_LIMIT)
    counted = fuse_norms(model) if isinstance(model, ChainNetwork) else model
    table = count_macs(counted, model.image_size).keeping(exits)

    def describe(weights_sha256: str) -> Manifest:
        """The manifest of the network whose weights have this digest."""
        return Manifest(
            model=model.name,
            arguments=model.arguments,
            labels=list(labels),
            preprocess=preprocess,
            depth=model.depth,
            exit_blocks=list(exits),
            thresholds=[float(value) for value in thresholds],
            macs=[round(answer.macs) for answer in table.exits],
            precision=precision,
            packed_engine=packed_engine,
            weights_sha256=weights_sha256,
            pi_dynn_version=version("pi_dynn"),
            torch_version=torch.__version__,
            notes={"parameters": sum(p.numel() for p in model.parameters())} | report | (notes or {}),
            self_test=self_test,
        )

    return pack_bundle(scripted, describe)


def _packing_engine(precision: str) -> str | None:
    """The engine that int8 weights are packed for at first; loading packs them for its own machine."""
    if precision == "fp32":
        return None
    engines = available_engines()
    return "qnnpack" if precision == INT8_STATIC and "qnnpack" in engines else engines[0]


def usual_precision(model: nn.Module) -> str:
    """The int8 a network of this family has without being asked: ranges found anew, or beforehand on images."""
    return "int8" if isinstance(model, GFNet | GFNetPyramid) else INT8_STATIC


def int8_kinds(model: nn.Module) -> list[str]:
    """The precisions below fp32 a network in evaluation form can have: "int8", "int8-static", "onnx".

    Convolutions have a static form where torch can trace them. In ONNX everything can be int8 that has a bundle.
    """
    if isinstance(model, GFNet | GFNetPyramid):
        return ["int8", INT8_STATIC, "onnx"]
    if not isinstance(model, ChainNetwork):
        return []
    if isinstance(model, LSNet):  # qnnpack refuses a sum: benchmarks/static_int8.py lsnet_t --image-size 64
        return ["onnx"]
    chain = model.eval().chain()
    traceable = can_be_traced(nn.Sequential(chain.stem, *(module for block in chain.blocks for module in block)))
    return [INT8_STATIC, "onnx"] if traceable else ["onnx"]


def rehearse(model: nn.Module, precision: str, images: Tensor, trained: bool) -> None:
    """Do with a network about to be trained what `build_bundle` will have to do, on few preprocessed `images`.

    Without `trained` weights only whether it can be done is of interest, not how far int8 would be off.

    Raises: ModelError, with what was measured, for a network that would have no bundle in this precision.
    """
    made, exits, engine = copy.deepcopy(model).cpu().eval(), list(model.exit_blocks), _packing_engine(precision)
    try:
        if precision == INT8_STATIC:
            if not trained:
                let_norms_see(made, images)
            _static_form(made, exits, images, engine, STATIC_LIMIT if trained else math.inf)
        elif usual_precision(model) != precision:
            deploy_form(made, exits, precision, engine)
    except ModelError as error:
        raise ModelError(
            f"{model.name} would have no bundle in {precision}, so nothing is trained: {error}; "
            "another --precision may do"
        ) from error


@torch.no_grad()
def let_norms_see(model: nn.Module, images: Tensor) -> None:
    """Set the statistics of every batch norm by `images`: those of fresh weights fit nothing that runs through."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    model.forward_exits(images)
    for norm in norms:
        norm.eval()


def _static_form(
    model: nn.Module, exits: list[int], images: Tensor, engine: str, limit: float
) -> tuple[torch.jit.ScriptModule, dict, list]:
    """The scripted network in static int8, the notes on it, and its self-test. Raises ModelError for a family without.

    Convolutions cannot fall back to floats, so engines are tested against their answers.
    """
    convolutions = isinstance(model, ChainNetwork)
    quantise = quantise_statically if convolutions else quantise_products
    try:
        network, report = quantise(deploy_form(model, exits, "fp32", None), images, engine, limit)
        with using_engine(engine), warnings.catch_warnings():  # frozen parts go through a file, and are packed anew
            warnings.filterwarnings("ignore", message="The TorchScript type system", category=UserWarning)  # torch.ao's
            scripted = script_and_freeze(network)
    except RuntimeError as error:  # what torch.ao makes of some networks cannot be run
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"{model.name} has no {INT8_STATIC} form that runs ({reason}): use fp32") from error
    self_test = self_test_answers(scripted, model.image_size) if convolutions else []
    return scripted, {"static_int8": report.to_dict()}, self_test


def deploy_form(model: nn.Module, exits: list[int], precision: str, engine: str | None) -> EarlyExitNetwork:
    """The deploy form of a model of any family. Raises ModelError for a family without one."""
    linear = linear_form(precision, engine)
    with torch.no_grad():
        if isinstance(model, GFNet):
            return deploy_gfnet(model, exits, linear)
        if isinstance(model, GFNetPyramid):
            return deploy_pyramid(model, exits, linear)
        if isinstance(model, ChainNetwork):
            if precision != "fp32":
                raise ModelError(
                    f"the convolutions of {type(model).__name__} have no {precision} form: pass "
                    f'precision="{INT8_STATIC}" with calibration images (--precision {INT8_STATIC} --data PATH), '
                    'or "fp32"'
                )
            return deploy_chain(model, exits)
    raise ModelError(f"{type(model).__name__} has no deploy form yet")


def script_and_freeze(network: EarlyExitNetwork) -> torch.jit.ScriptModule:
    """Compile the network with its stem and every stage frozen on its own.

    Freezing the whole would copy all stages into each of its methods, and a file with the code five times
    takes seconds to load; frozen parts are called, so the code is there once. Constants are baked in, but
    what the runtime sets after loading stays open.
    """
    # TorchScript: heads and gates stay unfrozen. It derives the rows of an addmm from a constant weight, and
    # would then fold the batch size read off the logits into a wrong constant.
    frozen = copy.deepcopy(network)
    frozen.stem, frozen.last_stage = _freeze(frozen.stem), _freeze(frozen.last_stage)
    frozen.stages = nn.ModuleList(_freeze(stage) for stage in frozen.stages)
    for head in frozen.heads:
        if isinstance(head, HeadOnMaps):
            head.maps = _freeze(head.maps)
    return script(frozen)


def _freeze(part: nn.Module) -> torch.jit.ScriptModule:
    frozen = torch.jit.freeze(script(part.eval()), preserved_attrs=_set_after_loading(part))
    # TorchScript: only a module that has been through a file can become part of another scripted one.
    stream = io.BytesIO()
    torch.jit.save(frozen, stream)
    stream.seek(0)
    return torch.jit.load(stream)


def _set_after_loading(part: nn.Module) -> list[str]:
    """Dotted names of all attributes in `part` that freezing has to preserve."""
    return [
        f"{name}.{attribute}"
        for name, module in part.named_modules()
        for kind, attributes in SET_AFTER_LOADING.items()
        if isinstance(module, kind)
        for attribute in attributes
    ]


def _check(
    model: nn.Module,
    exits: Sequence[int],
    thresholds: Sequence[float],
    precision: str,
    labels: Sequence[str],
    preprocess: Preprocess,
) -> None:
    if precision not in PRECISIONS:
        raise ModelError(f"precision={precision!r} is not known: give one of {', '.join(PRECISIONS)}")
    untrained = [block for block in exits if block not in model.exit_blocks]
    if untrained or list(exits) != sorted(set(exits)):
        raise ModelError(f"exits {list(exits)} must rise and be among the trained ones, {model.exit_blocks}")
    if len(thresholds) != len(exits):
        raise ModelError(f"{len(exits)} exits need as many thresholds, got {len(thresholds)}")
    if len(labels) != model.num_classes:
        raise ModelError(f"the model has {model.num_classes} classes, got {len(labels)} labels")
    if preprocess.size != model.image_size:
        raise ModelError(f"the model takes {model.image_size} px, the preprocessing makes {preprocess.size}")


WORST_RELATIVE_ERROR = 1e-4  # folding only reorders float32 arithmetic; a mistake causes a far larger error


def deploy_chain(model: ChainNetwork, exits: list[int]) -> EarlyExitNetwork:
    """The deploy form of a chain with exits after the blocks `exits`, a subset of the trained ones.

    Raises: ModelError for a network in training mode, or if a folded answer is not that of `model`.
    """
    fused = fuse_norms(model)
    chain = fused.chain()
    network = assemble(model, exits, chain.stem, chain.blocks, fused.exit_head, chain.head)
    assert_parity(model, network, exits)
    return network


def assert_parity(model: ChainNetwork, network: EarlyExitNetwork, exits: list[int]) -> None:
    """Raise ModelError unless both give the same logits at every exit for a picture of noise."""
    size = model.image_size
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    blocks = [*exits, model.depth - 1]
    expected = [logits for block, logits, _ in model.forward_exits(x) if block in blocks]
    for block, answer, reference in zip(blocks, network.forward_all(x), expected, strict=True):
        error = float((answer - reference).norm() / reference.norm())
        if not error <= WORST_RELATIVE_ERROR:  # NaN is no parity either
            raise ModelError(
                f"the folded network is off by {error:.1e} after block {block}: are its weights finite and trained?"
            )
