"""The choice of the int8 engine of a TorchScript bundle on this machine: tested, timed and cached."""

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pi_dynn.clock import Clock
from pi_dynn.errors import BundleError, EngineUnavailable
from pi_dynn.records import Finding
from pi_dynn.runtime.bundle import Bundle, load_bundle
from pi_dynn.runtime.engines import ENGINES, available_engines, exact_engines
from pi_dynn.runtime.forms import FORM_NAMES
from pi_dynn.runtime.machine_cache import CHOICES
from pi_dynn.runtime.manifest import INT8_STATIC
from pi_dynn.runtime.stage_network import ENGINE_OF_GRAPHS
from pi_dynn.runtime.thread_choice import fastest
from pi_dynn.runtime.torchscript import quantised_layers

CANDIDATES = {"arm": ("onednn", "qnnpack"), "x86": ("x86", "onednn")}
WORST_RELATIVE_ERROR = 0.05  # dynamic int8 has errors of 1 to 3 %; those of a broken engine are far larger
WORST_STATIC_ERROR = 0.30  # ranges calibrated on images clip a picture of noise, and each engine rounds differently


def open_network(
    bundle: Bundle, engine: str, clock: Clock, on_timing: Callable[[], object] = lambda: None
) -> tuple[str, torch.jit.ScriptModule]:
    """The chosen engine and a TorchScript bundle's network on it.

    `engine` is a name or "auto", for which `PI_DYNN_ENGINE` is used if it is set. An fp32 bundle has no choice.
    `on_timing` is called before engines are timed.

    Raises: EngineUnavailable for an engine that is missing or computes wrong values.
    """
    if engine == "auto":
        engine = os.environ.get("PI_DYNN_ENGINE", "auto")
    if engine not in (*ENGINES, "auto"):
        raise EngineUnavailable(
            f"engine {engine!r} is not known: choose auto, {', '.join((*ENGINES, *ENGINE_OF_GRAPHS.values()))}"
        )
    if bundle.manifest.precision == "fp32":
        if engine not in ("auto", "fp32"):
            raise EngineUnavailable(f"the bundle holds fp32 weights: engine {engine!r} needs one exported as int8")
        return "fp32", bundle.load_network("fp32")
    if engine == "fp32":
        return "fp32", bundle.load_network("fp32")
    if engine == "auto":
        return _fastest(bundle, clock, on_timing)
    network, reduce_range = _tested(bundle, engine)
    _set_reduce_range(network, reduce_range)
    return engine, network


def exact_network(bundle: Bundle) -> torch.jit.ScriptModule:
    """A TorchScript bundle's network as exact as it can be: in floats, or on an engine whose convolutions are.

    Raises: EngineUnavailable where there is none, BundleError.
    """
    if bundle.manifest.has_floats:
        return bundle.load_network("fp32")
    if not exact_engines():
        raise EngineUnavailable("no engine here computes int8 convolutions exactly: use a bundle in fp32")
    return bundle.load_network(exact_engines()[0])


def candidates(has_floats: bool = True) -> list[str]:
    """The engines for this kind of processor, the one that is probably fastest first.

    Without `has_floats` for a network of int8 convolutions, which cannot fall back to floats: any that adds exactly.
    """
    if not has_floats:
        return exact_engines()
    family = "arm" if platform.machine().lower() in ("aarch64", "arm64") else "x86"
    return [name for name in CANDIDATES[family] if name in available_engines()]


def relative_error(outputs: list[Tensor], reference: list[Tensor]) -> float:
    """Norm of the difference over the norm of the reference, all exits together; inf if not finite."""
    a, b = torch.cat(outputs, 1), torch.cat(reference, 1)
    return float((a - b).norm() / b.norm()) if torch.isfinite(a).all() else float("inf")


def self_test_answers(network: torch.jit.ScriptModule, size: int) -> list[list[float]]:
    """Logits of each exit for the self-test picture, to be kept in a bundle that cannot compute in floats."""
    return [logits[0].tolist() for logits in _run(network, _test_picture(size))]


def _test_picture(size: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def _run(network: torch.jit.ScriptModule, x: Tensor) -> list[Tensor]:
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        logits: list[Tensor] = network.forward_all(x)
        return logits


def _set_reduce_range(network: torch.jit.ScriptModule, reduce_range: bool) -> None:
    for layer in quantised_layers(network):
        layer.reduce_range = reduce_range


def _tested(bundle: Bundle, engine: str) -> tuple[torch.jit.ScriptModule, bool]:
    """The network on `engine`, and whether its activations need the reduced range here.

    x86 without VNNI instructions saturates on the full 8-bit range and needs 7 bits; elsewhere 7 bits only
    lose accuracy. The machine decides: the range with the smaller error against fp32 is kept.
    """
    x, has_floats = _test_picture(bundle.manifest.preprocess.size), bundle.manifest.has_floats
    if not has_floats and engine not in exact_engines():
        others = " or ".join(exact_engines()) or "a bundle in fp32"
        raise EngineUnavailable(f"engine {engine!r} overflows in int8 convolutions on this machine; choose {others}")
    if has_floats:
        reference = _run(bundle.load_network("fp32"), x)
    else:  # the answers on the machine that built the bundle
        reference = [torch.tensor([logits]) for logits in bundle.manifest.self_test]
    network = bundle.load_network(engine)
    errors = {}
    # qnnpack has one range only and warns on stderr about the other; convolutions are packed with a fixed one.
    for reduce_range in (False,) if engine == "qnnpack" or not has_floats else (False, True):
        _set_reduce_range(network, reduce_range)
        errors[reduce_range] = relative_error(_run(network, x), reference)
    best = min(errors, key=lambda key: errors[key])
    static = bundle.manifest.precision == INT8_STATIC
    if errors[best] > (WORST_STATIC_ERROR if static else WORST_RELATIVE_ERROR):
        against, cure = (
            ("fp32 on this machine", "another or fp32") if has_floats else ("the machine that built it", "another")
        )
        raise EngineUnavailable(f"engine {engine!r} is off by {errors[best]:.0%} against {against}; choose {cure}")
    return network, best


def _fastest(bundle: Bundle, clock: Clock, on_timing: Callable[[], object]) -> tuple[str, torch.jit.ScriptModule]:
    """The fastest candidate that passes its test; cached per machine, torch and bundle."""
    known = _cached_choice(bundle)
    if known is not None:
        engine, reduce_range = known
        network = bundle.load_network(engine)
        if engine != "fp32":
            _set_reduce_range(network, reduce_range)
        return engine, network
    on_timing()
    x = _test_picture(bundle.manifest.preprocess.size)
    passed: dict[str, tuple[torch.jit.ScriptModule, bool]] = {}
    for engine in candidates(bundle.manifest.has_floats):
        try:
            network, reduce_range = _tested(bundle, engine)
        except (EngineUnavailable, RuntimeError):  # torch 2.13 on ARM offers an engine that only raises
            continue
        _set_reduce_range(network, reduce_range)
        passed[engine] = network, reduce_range
    if not passed and not bundle.manifest.has_floats:
        raise EngineUnavailable(
            f"no engine is accurate enough with {bundle.manifest.precision} on this machine: export the checkpoint "
            "with --precision fp32"
        )
    if not passed:
        return "fp32", bundle.load_network("fp32")
    engine = fastest(list(passed), lambda _: None, lambda name: _run(passed[name][0], x), clock)
    network, reduce_range = passed[engine]
    CHOICES.keep_if_writable([engine, reduce_range], *_of_engine(bundle))
    return engine, network


def _cached_choice(bundle: Bundle) -> tuple[str, bool] | None:
    """The cached engine of `bundle` on this machine, and whether it needs the reduced range; None if there is none."""
    match CHOICES.get(*_of_engine(bundle)):
        case [str(engine), bool(reduce_range)] if engine in (*candidates(bundle.manifest.has_floats), "fp32"):
            return engine, reduce_range
    return None


def _of_engine(bundle: Bundle) -> tuple[str, str, int]:
    return "engine", bundle.sha256, torch.get_num_threads()


def engine_findings(path: Path | None, clock: Clock) -> Sequence[Finding]:
    """The results of testing every engine of this processor on the bundle at `path`, or on the embedded one."""
    try:
        bundle = load_bundle(path)
    except (BundleError, OSError) as error:
        cure = "name a bundle with --bundle, or make one with `pi-dynn export`"
        return [Finding("engines", "bundle", "none", f"there is no bundle to test engines on ({error})", cure)]
    form = bundle.manifest.format
    if form in ENGINE_OF_GRAPHS:
        return [Finding("engines", "selected", f"{ENGINE_OF_GRAPHS[form]} (the bundle is {FORM_NAMES[form]})")]
    if bundle.manifest.precision == "fp32":
        return [Finding("engines", "selected", "fp32 (the bundle is fp32)")]
    findings = []
    for engine in candidates(bundle.manifest.has_floats):
        try:
            open_network(bundle, engine, clock)
        except (EngineUnavailable, RuntimeError) as error:  # torch 2.13 on ARM offers an engine that only raises
            reason = " ".join(str(error).split())
            findings.append(
                Finding("engines", engine, "broken", f"{engine} does not work here ({reason})", "use another")
            )
        else:
            findings.append(Finding("engines", engine, "works"))
    cached = _cached_choice(bundle)
    try:
        selected, _ = open_network(bundle, "auto", clock)
    except EngineUnavailable as error:  # PI_DYNN_ENGINE names one that is not available
        return [*findings, Finding("engines", "selected", "none", str(error), "unset PI_DYNN_ENGINE")]
    how = "remembered" if cached is not None and cached[0] == selected else "timed just now"
    return [*findings, Finding("engines", "selected", f"{selected} ({how})")]
