"""The parts of the uncertainty budget, each against its definition."""

from dataclasses import replace

import pytest

from pi_dynn.energy.uncertainty import expanded_j, scale_share, uncertainty_budget
from pi_dynn.power import MeterInfo, run_energy
from pi_dynn.power.energy import TrialEnergy
from pi_dynn.power.meter import SIMULATED, MeterAccuracy

ROOT_3 = 3**0.5
N, LATENCY_S, IDLE_W = 500, 0.02, 2.0
ACCURACY = MeterAccuracy("data sheet", shunt=0.01, gain=0.005, voltage=0.004, offset_w=0.01)
INFO = MeterInfo(
    "fake", "board input", (), 2e-3, 5e-3, measured=False, label=SIMULATED, shunt_ohm=0.1, accuracy=ACCURACY
)


@pytest.fixture(scope="module")
def energy():
    """Three trials of 30, 31 and 32 mJ net."""
    trials = []
    for net_j in (0.030, 0.031, 0.032):
        gross_j = net_j + IDLE_W * LATENCY_S
        trials.append(TrialEnergy(N, N * LATENCY_S, LATENCY_S, gross_j, net_j, gross_j / LATENCY_S, IDLE_W))
    return run_energy(trials)


def parts_of(energy, info=INFO, sag_limit_w=0.0, slowdown=0.0):
    return {one.source: one for one in uncertainty_budget(energy, info, sag_limit_w=sag_limit_w, slowdown=slowdown)}


def test_every_part_is_that_of_its_definition(energy):
    parts = parts_of(energy, sag_limit_w=0.03, slowdown=0.02)
    net_j, gross_j = energy.net_j, energy.gross_j
    expected = {
        "trials": (4.303 * 0.001 / ROOT_3 / 2, 4.303 * 0.001 / ROOT_3 / 2),
        "resolution": (2**0.5 * 1e-3 / ROOT_3 * LATENCY_S, 1e-3 / ROOT_3 * LATENCY_S),
        "window edges": (2**0.5 * 2.5e-3 / ROOT_3 * net_j / LATENCY_S / N,) * 2,
        "volts after amperes": (0.03 / ROOT_3 * LATENCY_S,) * 2,
        "slowed by sampling": (0.02 / ROOT_3 * net_j, 0.02 / ROOT_3 * gross_j),
        "shunt": (0.01 / ROOT_3 * net_j, 0.01 / ROOT_3 * gross_j),
        "gain": (0.005 / ROOT_3 * net_j, 0.005 / ROOT_3 * gross_j),
        "voltage": (0.004 / ROOT_3 * net_j, 0.004 / ROOT_3 * gross_j),
        "offset": (0.0, 0.01 / ROOT_3 * LATENCY_S),  # the same in idle and work
    }
    assert {source: (part.net_j, part.gross_j) for source, part in parts.items()} == {
        source: pytest.approx(values) for source, values in expected.items()
    }
    assert [source for source, part in parts.items() if part.kind == "A"] == ["trials"]


def test_the_parts_are_combined_as_independent_and_expanded_by_two(energy):
    parts = list(parts_of(energy).values())
    assert expanded_j(parts, "net_j") == pytest.approx(2 * sum(part.net_j**2 for part in parts) ** 0.5)
    assert expanded_j(parts[:1], "net_j") == pytest.approx(energy.net_ci95_j[1] - energy.net_j)


def test_a_certificate_replaces_the_data_sheet_and_an_unknown_meter_has_no_scale(energy):
    certified = replace(INFO, accuracy=replace(ACCURACY, shunt=0.002, gain=0.0))
    assert "gain" not in parts_of(energy, certified)
    assert parts_of(energy, certified)["shunt"].net_j == pytest.approx(0.002 / ROOT_3 * energy.net_j)
    unknown = replace(INFO, accuracy=None)
    assert not {"shunt", "gain", "voltage", "offset"} & set(parts_of(energy, unknown))
    assert scale_share(unknown) is None
    assert scale_share(INFO) == pytest.approx((0.01**2 + 0.005**2 + 0.004**2) ** 0.5 / ROOT_3)
