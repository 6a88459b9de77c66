"""A bundle with what calibration found built in: thresholds, the score they belong to, and temperatures."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.deploy.temperature import fold_temperatures
from pi_dynn.errors import ModelError
from pi_dynn.exits.confidence import MarginGate, MaxProbabilityGate
from pi_dynn.exits.entropy import EntropyGate
from pi_dynn.runtime.bundle import Bundle, pack_bundle
from pi_dynn.runtime.engine_choice import self_test_answers
from pi_dynn.runtime.engines import available_engines

OWN = "gate"  # the gates the bundle has


def score_gate(score: str, num_classes: int) -> nn.Module:
    """A gate that judges an exit by the score named.

    Raises: ModelError for a score that one exit cannot tell by itself, or that is not known.
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
        "entropy-inverted": lambda: EntropyGate(num_classes, inverted=True),
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
) -> Bundle:
    """The bundle with these thresholds as its own, exits judged by `score`, and temperatures (K + 1) in its heads.

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
    scripted = torch.jit.script(network)
    return pack_bundle(
        scripted,
        lambda digest: replace(
            manifest,
            thresholds=[float(value) for value in thresholds],
            packed_engine=None if manifest.precision == "fp32" else engine,
            weights_sha256=digest,
            self_test=self_test_answers(scripted, manifest.preprocess["size"]) if manifest.self_test else [],
            notes=manifest.notes | {"calibration": built_in, "made_from": bundle.sha256},
        ),
    )
