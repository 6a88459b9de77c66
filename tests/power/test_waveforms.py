"""The closed forms themselves, against a plain sum of power over many small steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn.errors import InputError
from pi_dynn.power.fake import Constant, During, Ramp, Square, Sum, Switched, waveform_energy_j

STEPS = 200_000
CASES = {
    "constant": (Constant(3.2), lambda t: 3.2 + 0 * t),
    "ramp": (Ramp(3.0, 0.25, t0_s=0.4), lambda t: 3.0 + 0.25 * (t - 0.4)),
    "square": (
        Square(3.0, 5.0, 0.13, 0.7, 0.05),
        lambda t: np.where((t - 0.05) % 0.13 < 0.7 * 0.13, 5.0, 3.0),
    ),
    "during": (During(Constant(2.0), 0.3, 0.9), lambda t: np.where((t >= 0.3) & (t < 0.9), 2.0, 0.0)),
    "sum": (
        Sum((Constant(1.0), Ramp(0.0, 2.0), During(Constant(4.0), 0.5))),
        lambda t: 1.0 + 2.0 * t + np.where(t >= 0.5, 4.0, 0.0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_closed_form_is_the_sum_of_power(name):
    waveform, power_w = CASES[name]
    t0_s, t1_s = 0.017, 1.731
    width_s = (t1_s - t0_s) / STEPS
    middles_s = t0_s + (np.arange(STEPS) + 0.5) * width_s
    expected_j = float(power_w(middles_s).sum() * width_s)
    assert waveform_energy_j(waveform, t0_s, t1_s) == pytest.approx(expected_j, rel=1e-4)


def test_switched_load_follows_its_switch():
    load = Switched(2.0)
    load.set_power(1.0, 5.0)
    load.set_power(3.0, 1.0)
    assert waveform_energy_j(load, 0.5, 4.0) == pytest.approx(0.5 * 2.0 + 2.0 * 5.0 + 1.0 * 1.0)
    with pytest.raises(InputError, match="before its last change"):
        load.set_power(2.9, 3.0)


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(0, 5), st.floats(0.001, 1.0), st.floats(0.0, 1.0))
def test_neighbouring_windows_of_a_square_add_up(t0_s, first_s, second_s, period_s, duty):
    load = Square(1.0, 4.0, period_s, duty)
    middle_s, end_s = t0_s + first_s, t0_s + first_s + second_s
    parts_j = waveform_energy_j(load, t0_s, middle_s) + waveform_energy_j(load, middle_s, end_s)
    whole_j = waveform_energy_j(load, t0_s, end_s)
    assert parts_j == pytest.approx(whole_j, abs=1e-9)
    assert 1.0 * (end_s - t0_s) - 1e-9 <= whole_j <= 4.0 * (end_s - t0_s) + 1e-9
