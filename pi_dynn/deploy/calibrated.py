"""A bundle with a calibration built in: thresholds, their score, and temperatures."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pi_dynn.calibrate.reject import Rejection
from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.deploy.scripting import script
from pi_dynn.errors import ModelError
from pi_dynn.exits.scores import EntropyGate, MarginGate, MaxProbabilityGate
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engine_choice import self_test_answers
from pi_dynn.runtime.engines import available_engines
from pi_dynn.runtime.torchscript import pack_bundle


class ScaledGate(nn.Module):
    """A gate on logits as they were before their division by `temperature`."""

    def __init__(self, gate: nn.Module, temperature: float) -> None:
        super().__init__()
        self.gate = gate
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, logits: Tensor) -> Tensor:
        return self.gate(logits * self.temperature)


def fold_temperatures(network: EarlyExitNetwork, temperatures: Sequence[float]) -> None:
    """Divide the logits of every exit, the last answer included, by its temperature (K + 1), in place.

    A gate needs the logits it was trained on, so it multiplies by the temperature again: scores, and so the exits at
    given thresholds, do not change.

    Raises: ModelError for a wrong count, a temperature that is not positive, or heads of another kind.
    """
    heads = [*network.heads, network.last_head]
    if len(temperatures) != len(heads) or not all(0.0 < value < float("inf") for value in temperatures):
        raise ModelError(f"{len(heads)} answers need as many positive temperatures, got {list(temperatures)}")
    layers = [_linear_of(head) for head in heads]
    if None in layers:
        raise ModelError("temperatures can be folded only into heads that end in a linear layer")
    with torch.no_grad():
        for layer, temperature in zip(layers, temperatures, strict=True):
            layer.weight.div_(temperature)
            layer.bias.div_(temperature)
        for k, temperature in enumerate(temperatures[:-1]):  # the last answer has no gate
            network.gates[k] = _rescaled(network.gates[k], temperature)


def _rescaled(gate: nn.Module, temperature: float) -> nn.Module:
    if isinstance(getattr(gate, "powers", None), Tensor):  # the fused gate multiplies its logits anyway
        gate.powers.mul_(temperature)
        return gate
    return ScaledGate(gate, temperature)


def _linear_of(head: nn.Module) -> nn.Module | None:
    """The linear layer that gives a head's logits: the head itself, or its last layer."""
    for part in (head, *reversed(list(head.children()))):
        if all(isinstance(getattr(part, name, None), Tensor) for name in ("weight", "bias")):
            return part
        if part is not head:
            return _linear_of(part) if list(part.children()) else None
    return None


OWN = "gate"  # the gates the bundle has


def score_gate(score: str, num_classes: int) -> nn.Module:
    """A gate that computes the score `name` of an exit.

    Raises: ModelError for an unknown score, or one that needs several exits.
    """
    if score == "patience":
        raise ModelError(
            "patience counts the exits that agree, and a gate sees its own exit only: it is for comparison in "
            "calibrate and evaluate; build in max-probability, margin or entropy"
        )
    gates = {
        "max-probability": MaxProbabilityGate,
        "margin": MarginGate,
        "entropy": lambda: EntropyGate(num_classes),
    }
    if score not in gates:
        raise ModelError(f"no score {score!r}: give {OWN} or one of {', '.join(gates)}")
    return gates[score]()


def calibrated_bundle(
    bundle: Bundle,
    *,
    thresholds: Sequence[float],
    score: str = OWN,
    temperatures: Sequence[float] | None = None,
    rejection: Rejection | None = None,
) -> Bundle:
    """The bundle with these thresholds as its own, exits judged by `score`, and temperatures (K + 1) in its heads.

    `rejection` takes the place of the bundle's own, if it is given.

    Exits judge logits as they were before the temperatures, so thresholds found without them hold. Costs in the
    manifest stay those with the gates the bundle had.

    Raises: ModelError for a score or temperatures that cannot be built in; BundleError, EngineUnavailable.
    """
    manifest = bundle.manifest
    engines = available_engines()
    engine = manifest.packed_engine if manifest.packed_engine in engines else next(iter(engines), "fp32")
    scripted = bundle.load_network("fp32" if manifest.precision == "fp32" else engine)
    stages, heads, gates = (list(part.children()) for part in (scripted.stages, scripted.heads, scripted.gates))
    if score != OWN:
        gates = [score_gate(score, len(manifest.labels)) for _ in gates]
    # TorchScript: loaded parts can go into another scripted module, though not be replaced within their own.
    network = EarlyExitNetwork(
        scripted.stem, [*stages, scripted.last_stage], [*heads, scripted.last_head], gates
    ).eval()
    if temperatures is not None:
        fold_temperatures(network, temperatures)
    built_in = {"score": score, "temperatures": None if temperatures is None else [float(one) for one in temperatures]}
    scripted = script(network)
    return pack_bundle(
        scripted,
        lambda digest: replace(
            manifest,
            thresholds=[float(value) for value in thresholds],
            packed_engine=None if manifest.precision == "fp32" else engine,
            weights_sha256=digest,
            self_test=self_test_answers(scripted, manifest.preprocess.size) if manifest.self_test else [],
            notes=manifest.notes | {"calibration": built_in, "made_from": bundle.sha256},
            rejection=rejection or manifest.rejection,
        ),
    )
