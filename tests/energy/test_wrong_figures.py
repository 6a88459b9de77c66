"""Figures that would be wrong and look right: each is right, or invalid with its reason, or not resolved."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from pi_dynn.energy.measure import measure_energy
from pi_dynn.energy.protocol import EnergyParts, EnergySettings, measure_call
from pi_dynn.energy.results import energy_results
from pi_dynn.energy.text import energy_notes, energy_table
from pi_dynn.energy.validity import Supply
from pi_dynn.power import Span
from pi_dynn.power.estimate import Estimate, power_model
from pi_dynn.power.fake import FakeBus, Ina219Chip, SimulatedClock, Switched, open_fake
from pi_dynn.power.hwmon import Hwmon
from tests.energy.simulated import IDLE_W, QUICK, Bench, SimulatedBoard

SETTINGS = EnergySettings(trials=3, trial_s=2.0, idle_s=2.0)
ACTIVE_W, CALL_S = 3.26, 0.02
TRUE_J = CALL_S * (ACTIVE_W - IDLE_W)


class Bursts:
    """A function that draws `burst_w` for a part of its time and `low_w` for the rest; a tail follows the work."""

    def __init__(self, *, burst_w=ACTIVE_W, low_w=ACTIVE_W, duty=0.5, tail_s=0.0, meter=None, **chip):
        self.clock, self.load = SimulatedClock(), Switched(IDLE_W)
        self.burst_w, self.low_w, self.duty, self.tail_s = burst_w, low_w, duty, tail_s
        self.chip = Ina219Chip(self.clock, self.load, noise_v=4e-4, **chip)
        self.meter = open_fake(clock=self.clock, bus=FakeBus(self.chip, self.clock), **(meter or {}))

    def __call__(self):
        self.load.set_power(self.clock.now_ns() * 1e-9, self.burst_w)
        self.clock.sleep(self.duty * CALL_S)
        self.load.set_power(self.clock.now_ns() * 1e-9, self.low_w)
        self.clock.sleep((1 - self.duty) * CALL_S)

    @contextmanager
    def working(self):
        yield
        end_s = self.clock.now_ns() * 1e-9
        if self.tail_s:
            self.load.set_power(end_s + self.tail_s, IDLE_W)
        else:
            self.load.set_power(end_s, IDLE_W)

    @property
    def true_j(self) -> float:
        mean_w = self.duty * self.burst_w + (1 - self.duty) * self.low_w
        return CALL_S * (mean_w - IDLE_W)

    def result(self, settings=SETTINGS):
        parts = EnergyParts(self.meter, self.clock, SimulatedBoard(), self.working)
        (result,) = energy_results(*measure_call(parts, self, "call", settings))
        return result


def reasons(result) -> str:
    return "\n".join(result.invalid_reasons)


def test_the_nominal_run_is_right_and_valid():
    bursts = Bursts()
    result = bursts.result()
    assert result.valid, result.invalid_reasons
    assert result.net_j == pytest.approx(bursts.true_j, rel=3e-3)
    assert result.net_ci95_j[0] < result.net_j < result.net_ci95_j[1]
    assert abs(result.net_j - bursts.true_j) < result.net_expanded_j


@pytest.mark.parametrize(("burst_w", "duty"), [(22.0, 0.2), (18.0, 0.05), (15.5, 0.5)])
def test_peaks_that_are_cut_off_within_the_average_make_the_run_invalid(burst_w, duty):
    result = Bursts(burst_w=burst_w, low_w=3.0, duty=duty).result()
    assert result.clipped == 0 or duty == 0.2  # the average of a sample is below the end of the range
    assert "over 90% of the range of 3.2 A" in reasons(result)
    assert result.peak_a > 0.9 * 3.2


def test_a_range_too_small_for_the_peaks_is_widened():
    bursts = Bursts(burst_w=9.0, low_w=3.0, duty=0.2, meter={"max_current_a": 0.8})
    result = bursts.result()
    assert result.valid, result.invalid_reasons
    assert result.net_j == pytest.approx(bursts.true_j, rel=0.01)
    assert any("the widest one is used" in note for note in result.notes)


@pytest.mark.parametrize("shunt_ohm", [0.01, 0.02])
def test_the_wrong_shunt_is_told_from_the_power_of_the_board(shunt_ohm):
    result = Bursts(shunt_ohm=shunt_ohm).result()
    assert result.net_j < 0.25 * TRUE_J
    assert "is not the input of a Raspberry Pi 4 Model B" in reasons(result)
    assert f"its shunt: {shunt_ohm:g}" in reasons(result) or f"or {shunt_ohm:g} ohm would fit" in reasons(result)


@pytest.mark.parametrize("tail_s", [0.2, 0.3, 1.0])
def test_idle_power_is_measured_after_the_power_has_settled(tail_s):
    bursts = Bursts(tail_s=tail_s)
    result = bursts.result()
    assert result.valid, result.invalid_reasons
    assert result.net_j == pytest.approx(bursts.true_j, rel=5e-3)
    assert tail_s <= result.settling_s <= tail_s + 2.5  # steps of half a second, the last two of them steady


def test_power_that_never_settles_is_noted():
    bench = Bench(drift_w_per_s=-0.05)
    (result,) = energy_results(*bench.measure(replace(QUICK, trials=3)))
    assert any("still falling" in note for note in result.notes)


def test_sampling_that_slows_the_work_makes_the_run_invalid():
    bench = Bench()
    plain = bench.session.latency_s

    def on_answer(number: int) -> None:
        slow = 1.3 if bench.stages[-1].startswith("trial") else 1.0
        bench.session.latency_s = tuple(slow * latency_s for latency_s in plain)

    bench.session.on_answer = on_answer
    (result,) = energy_results(*bench.measure())
    assert result.slowdown == pytest.approx(0.3, abs=0.01)
    assert "1.30 times as long while they were sampled (limit 1.05)" in reasons(result)


@pytest.mark.parametrize(("line_ohm", "burst_a"), [(0.25, 0.7), (0.35, 1.6), (0.1, 0.5)])
def test_a_sagging_supply_is_within_the_uncertainty_or_invalid(line_ohm, burst_a):
    bursts = Bursts(burst_w=IDLE_W + 5.0 * burst_a, low_w=IDLE_W, line_ohm=line_ohm, bus_v=5.2)
    result = bursts.result()
    covered = abs(result.net_j - bursts.true_j) <= result.net_expanded_j
    assert covered or "the supply sags" in reasons(result)


def test_under_voltage_and_sag_are_seen_by_the_meter_itself():
    assert "the supply fell to 4.40 V, a Raspberry Pi needs 4.63 V" in reasons(Bursts(bus_v=4.4).result())
    sagging = Bursts(line_ohm=1.0, burst_w=5.5, low_w=5.5, bus_v=5.7).result()
    assert "the supply sags from" in reasons(sagging)
    assert sagging.idle_voltage_v - sagging.active_voltage_v > 0.5
    assert sagging.lowest_voltage_v <= sagging.active_voltage_v


def test_idle_power_that_moves_as_much_as_the_work_adds_makes_the_run_invalid():
    bursts = Bursts()
    calls = []

    def call():
        calls.append(None)
        bursts()

    @contextmanager
    def working():
        yield
        bursts.load.set_power(bursts.clock.now_ns() * 1e-9, IDLE_W + (0.9 if len(calls) > 150 else 0.0))

    parts = EnergyParts(bursts.meter, bursts.clock, SimulatedBoard(), working)
    (result,) = energy_results(*measure_call(parts, call, "call", SETTINGS))
    assert "idle power moved by" in reasons(result)


class LoadRail:
    """A rail of the kernel that shows the power of this moment, as point samples do."""

    label, shunt_ohm, full_scale_v, update_s, gain = "ina219", 0.1, 0.32, 0.0, 1.0

    def __init__(self, clock, power_w, voltage):
        self.clock, self.power_w, self.voltage = clock, power_w, voltage

    def read(self):
        power_w = self.power_w(self.clock.now_ns() * 1e-9)
        return power_w, 5.1, power_w / 5.1, False

    def volts(self):
        return 5.1

    def accuracy(self, voltage_v):
        return None


def test_point_samples_do_not_keep_step_with_the_work(tmp_path):
    """Work with the period of the samples, of which every sample would see the same part."""
    (tmp_path / "in1_input").write_text("5100\n")
    clock, state = SimulatedClock(), {"busy": False}

    def power_w(t_s: float) -> float:
        return IDLE_W + (2.0 if state["busy"] and t_s % 0.015 < 0.005 else 0.0)

    @contextmanager
    def working():
        state["busy"] = True
        yield
        state["busy"] = False

    meter = Hwmon(clock, [LoadRail(clock, power_w, tmp_path / "in1_input")], "board input", 1e-3, ())
    assert meter.info.nominal_period_s == pytest.approx(0.015)
    parts = EnergyParts(meter, clock, SimulatedBoard(), working)
    settings = EnergySettings(trials=5, trial_s=20.0, idle_s=5.0)
    (result,) = energy_results(*measure_call(parts, lambda: clock.sleep(0.015), "call", settings))
    assert result.valid, result.invalid_reasons
    assert result.net_j == pytest.approx(0.015 * 2.0 / 3, rel=0.05)
    assert result.net_ci95_j[0] < 0.010 < result.net_ci95_j[1]


def test_a_trial_too_short_for_its_meter_is_lengthened_and_said_before():
    bench, said = Bench(), []
    parts = EnergyParts(bench.meter, bench.clock, bench.board, bench.working, on_note=said.append)
    (result,) = energy_results(*measure_energy(parts, [bench.candidate()], replace(QUICK, n=3)))
    assert "3 answers take 0.07 s, too short for the meter fake" in said[0]
    assert result.n > 3 and result.trial_s >= 50 * bench.meter.info.nominal_period_s
    assert result.valid, result.invalid_reasons
    (kept,) = energy_results(*Bench().measure(replace(QUICK, n=3, exact_n=True)))
    assert kept.n == 3


def test_how_long_the_trials_take_is_said_before_them():
    """With a model instead of a meter as well; a simulation does not take that long."""
    for simulated in (False, True):
        bench, said = Bench(), []
        meter = bench.meter if simulated else Estimate(bench.clock, power_model("", 2), lambda: (0.0, 1.0))
        parts = EnergyParts(meter, bench.clock, bench.board, bench.working, on_note=said.append)
        measure_energy(parts, [bench.candidate()], replace(QUICK, n=600))
        about = [note for note in said if "more" in note]
        assert about == ([] if simulated else ["5 trials with idle windows between them: about 0:01:16 more"])


def test_an_estimate_on_a_busy_machine_is_not_resolved():
    """Other programs take all of the processor, so that the model sees no difference."""
    clock = SimulatedClock()

    def busy_and_total_s() -> tuple[float, float]:
        return clock.now_ns() * 1e-9, clock.now_ns() * 1e-9

    meter = Estimate(clock, power_model("", 2), busy_and_total_s)
    parts = EnergyParts(meter, clock, SimulatedBoard())
    settings = EnergySettings(trials=3, trial_s=5.0, idle_s=2.0)
    (result,) = energy_results(*measure_call(parts, lambda: clock.sleep(0.01), "call", settings))
    assert not result.resolved
    assert "not resolved" in energy_table([result])
    assert "0.000 mJ" not in energy_table([result])
    assert any("not shown to be above zero" in note for note in energy_notes([result]))


def test_an_improvement_on_an_invalid_run_is_none():
    bench = Bench()
    bench.board.live = lambda: 0x4 if "trial 3" in bench.stages[-1] else 0x0
    *_, result = energy_results(*bench.measure(candidates=[bench.candidate(name="a"), bench.candidate(name="b")]))
    assert not result.valid
    assert (result.improvement, result.in_turns.verdict, result.in_turns.valid) == (None, "no verdict", False)


def test_idle_windows_and_trials_do_not_overlap():
    recording, trace = Bench().measure()
    windows = [trace.spans[place] for place in [*recording.idle, *(one.span for one in recording.trials)]]
    ordered: list[Span] = sorted(windows)
    assert all(one.t1_ns <= after.t0_ns for one, after in zip(ordered, ordered[1:], strict=False))


def test_the_limit_of_the_error_by_sag():
    volts = Supply(idle_v=5.2, active_v=5.0, idle_a=0.5, active_a=1.0, peak_a=1.5)
    assert volts.line_ohm == pytest.approx(0.4)
    assert volts.sag_limit_w == pytest.approx(0.4 * 0.5**2)
