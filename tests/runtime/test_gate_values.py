"""Gates in NumPy say what those in torch say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_dynn.deploy.calibrated import ScaledGate
from pi_dynn.deploy.litert import described_gate
from pi_dynn.deploy.network import FusedGate
from pi_dynn.exits.gate import LearnableUncertaintyGate
from pi_dynn.exits.scores import EntropyGate, MarginGate, MaxProbabilityGate
from pi_dynn.runtime.gate_values import Gate

GATES = {
    "max-probability": lambda classes: MaxProbabilityGate(),
    "margin": lambda classes: MarginGate(),
    "entropy": EntropyGate,
    "learned": lambda classes: FusedGate(LearnableUncertaintyGate(), classes),
}
LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12)


@pytest.mark.parametrize("kind", GATES)
@given(logits=LOGITS, temperature=st.floats(0.2, 5.0))
@settings(max_examples=25)  # each scripts a gate
def test_the_same_score(kind, logits, temperature):
    torch.manual_seed(0)
    own = GATES[kind](len(logits))
    if kind == "learned":
        own.powers.mul_(temperature)
        gate = own
    else:
        gate = ScaledGate(own, temperature)
    described = described_gate(torch.jit.script(gate))
    assert described.kind == kind and Gate.from_dict(described.to_dict()) == described
    x = torch.tensor([logits])
    want = torch.sigmoid(gate(x).double()).item()
    got = torch.sigmoid(torch.tensor(described.value(x[0].numpy()))).item()
    assert got == pytest.approx(want, abs=1e-5)


def test_one_class_is_always_sure():
    assert Gate("max-probability").value(torch.zeros(1).numpy()) == float("inf")


@pytest.mark.parametrize("values", [{"kind": "other"}, {"kind": "learned"}, {"kind": "margin", "weights": [1.0]}, {}])
def test_what_is_no_gate_is_refused(values):
    with pytest.raises(ValueError):
        Gate.from_dict(values)
