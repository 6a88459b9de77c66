"""The protocol of an energy run, on simulated time."""

from dataclasses import replace

import pytest

from pi_dynn.energy.measure import measure_energy
from pi_dynn.energy.protocol import EnergyParts, EnergySettings
from pi_dynn.energy.results import energy_results
from pi_dynn.errors import InputError
from pi_dynn.power import SampleFlags
from tests.energy.simulated import IDLE_W, QUICK, Bench, SimulatedSession

MEAN_LATENCY_S = (0.010 + 0.020 + 0.040) / 3
TRUE_NET_J = MEAN_LATENCY_S * (3.2 - IDLE_W)


def measured(bench: Bench, settings: EnergySettings = QUICK, candidates=None):
    """Recording, trace and results of a run."""
    measurement = bench.measure(settings, candidates)
    return *measurement, energy_results(*measurement)


@pytest.mark.parametrize("drift_w_per_s", [0.0, 0.005])
def test_net_energy_is_that_of_the_load_also_while_idle_drifts(drift_w_per_s):
    *_, (result,) = measured(Bench(drift_w_per_s=drift_w_per_s), replace(QUICK, n=240))
    assert result.valid, result.invalid_reasons
    assert result.net_j == pytest.approx(TRUE_NET_J, rel=0.005)
    assert result.net_ci95_j[0] <= result.net_j <= result.net_ci95_j[1]
    assert result.idle_drift_w_per_s == pytest.approx(drift_w_per_s, abs=2e-4)
    assert result.resolved
    assert not result.measured
    assert result.label == "SIMULATED"


def test_net_and_gross_obey_the_published_rule():
    *_, (result,) = measured(Bench(), replace(QUICK, n=240))
    assert result.latency_s == pytest.approx(MEAN_LATENCY_S)
    net_w = result.active_power_w - result.idle_power_w
    assert result.net_j == pytest.approx(result.latency_s * net_w, rel=0.005)
    assert result.gross_j == pytest.approx(result.latency_s * result.active_power_w, rel=0.005)


def test_exits_have_their_share_accuracy_and_latency():
    *_, (result,) = measured(Bench(), replace(QUICK, n=240))
    assert [row.block_index for row in result.exits] == [1, 4, 11]
    assert [row.share for row in result.exits] == pytest.approx([1 / 3] * 3)
    assert [row.latency_s for row in result.exits] == pytest.approx([0.010, 0.020, 0.040])
    assert [row.accuracy for row in result.exits] == [1.0, 1.0, 0.5]  # the last label of six is wrong
    assert result.acc1 == pytest.approx(5 / 6)
    assert [row.net_j for row in result.exits] == [None] * 3


def test_accuracy_is_unknown_without_labels():
    bench = Bench()
    *_, (result,) = measured(bench, candidates=[bench.candidate(labels=None)])
    assert result.acc1 is None
    assert {row.accuracy for row in result.exits} == {None}


def test_every_inference_has_a_span_and_latency_was_timed_before_sampling_began():
    recording, trace, _ = measured(Bench())
    assert len([span for span in trace.spans if span.label.startswith("exit ")]) == QUICK.n * QUICK.trials
    (idle,) = trace.labelled("idle 1")
    first_trial = trace.labelled(recording.trials[0].label)[0]
    assert recording.latency[0].n == QUICK.n
    assert trace.t_ns[0] > 0
    assert idle.t0_ns - trace.t_ns[0] < (0.1 + recording.settling_s[0]) * 1e9 < recording.latency[0].elapsed_s * 1e9
    assert idle.t1_ns <= first_trial.t0_ns
    assert len(recording.idle) == QUICK.trials + 1
    assert {round(trace.spans[place].duration_s, 2) for place in recording.idle} == {QUICK.idle_s}
    order = sorted([*recording.idle, *(one.span for one in recording.trials)], key=lambda place: trace.spans[place])
    assert [trace.spans[place].label[:4] for place in order] == ["idle", "tria"] * QUICK.trials + ["idle"]


def test_without_n_a_trial_lasts_long_enough_and_answers_every_image_equally_often():
    recording, _, (result,) = measured(Bench(), EnergySettings(trials=2, idle_s=1.0, trial_s=3.0))
    assert result.trial_s >= 3.0
    assert recording.trials[0].n % 6 == 0


def test_the_edges_of_the_trials_are_told():
    bench, edges = Bench(), []
    parts = EnergyParts(
        bench.meter,
        bench.clock,
        bench.board,
        bench.working,
        on_trial=lambda begins: edges.append((begins, bench.clock.now_ns())),
    )
    recording, trace = measure_energy(parts, [bench.candidate()], QUICK)
    assert [begins for begins, _ in edges] == [True, False] * QUICK.trials
    for one, (_, begin_ns), (_, end_ns) in zip(recording.trials, edges[::2], edges[1::2], strict=True):
        span = trace.spans[one.span]
        assert begin_ns <= span.t0_ns < span.t1_ns <= end_ns
        assert end_ns - begin_ns < span.t1_ns - span.t0_ns + 10**7


def test_progress_ends_where_it_said_it_would():
    bench, stages = Bench(), []
    parts = EnergyParts(
        bench.meter,
        bench.clock,
        bench.board,
        bench.working,
        on_stage=lambda what, done_s, total_s: stages.append((what, done_s, total_s)),
    )
    measure_energy(parts, [bench.candidate()], QUICK)
    what, done_s, total_s = stages[-1]
    assert what == f"idle {QUICK.trials + 1}"
    assert total_s - done_s == pytest.approx(QUICK.idle_s, rel=0.02)  # that of the last window
    assert [done for _, done, _ in stages] == sorted(done for _, done, _ in stages)


def test_without_n_batches_fill_a_trial_as_well():
    recording, *_ = measured(Bench(), EnergySettings(trials=1, idle_s=1.0, trial_s=3.0, batch_size=8))
    assert recording.trials[0].elapsed_s == pytest.approx(3.0, rel=0.1)


def test_every_depth_is_visited_before_anything_is_timed():
    bench = Bench()
    stages = []
    bench.session.on_answer = lambda number: stages.append((bench.stages or [""])[-1])
    bench.measure()
    assert stages.count("warm-up") >= 3 * (bench.session.exits + 1)
    assert stages.index("latency, subject 1") > stages.index("warm-up")


def test_each_exit_is_forced_and_adds_up_to_the_mix():
    settings = replace(QUICK, n=150, each_exit=True)
    recording, _, (result,) = measured(Bench(power_w=(3.0, 3.3, 3.6)), settings)
    assert result.valid, result.invalid_reasons
    true_j = [0.010 * 0.82, 0.020 * 1.12, 0.040 * 1.42]
    assert [row.net_j for row in result.exits] == pytest.approx(true_j, rel=0.01)
    assert result.exit_sum_j == pytest.approx(result.net_j, rel=0.01)
    assert result.exit_sum_ci95_j[0] <= result.exit_sum_j <= result.exit_sum_ci95_j[1]
    forced = [one for one in recording.trials if one.forced_exit == 0]
    assert all(one.exit_counts == [one.n, 0, 0] for one in forced)


def test_a_mix_that_is_not_the_sum_of_its_exits_is_invalid():
    class Moody(SimulatedSession):
        def classify(self, image, thresholds):
            self.power_w = (3.2, 3.2, 3.2) if thresholds == [0.5, 0.5] else (3.4, 3.4, 3.4)
            return super().classify(image, thresholds)

    bench = Bench()
    moody = Moody(bench.clock, bench.work)
    *_, (result,) = measured(bench, replace(QUICK, each_exit=True), [bench.candidate(moody)])
    assert not result.valid
    assert any("natural mix" in reason for reason in result.invalid_reasons)


def test_a_baseline_is_measured_in_turns_so_that_drift_cancels():
    bench = Bench(drift_w_per_s=0.005)
    slow = SimulatedSession(bench.clock, bench.work, latency_s=(0.020, 0.040, 0.080))
    settings = replace(QUICK, trials=4, n=100)
    recording, _, (base, early) = measured(
        bench, settings, [bench.candidate(slow, name="base"), bench.candidate(name="early")]
    )
    assert [one.subject for one in recording.trials] == [0, 1, 1, 0, 0, 1, 1, 0]
    assert base.improvement is None
    assert early.improvement == pytest.approx(0.5, abs=0.005)
    assert early.improvement_ci95[0] <= early.improvement <= early.improvement_ci95[1]


def test_batches_are_answered_whole():
    recording, _, (result,) = measured(Bench(), replace(QUICK, batch_size=4))
    assert result.batch_size == 4
    assert {one.n for one in recording.trials} == {QUICK.n}


def test_trials_wait_until_the_board_is_as_cool_as_at_the_start():
    bench = Bench()
    bench.board.temperatures = [50.0, 58.0, 54.0, 51.0]  # start, then warm twice, then cool enough
    bench.measure()
    assert bench.stages.count("cooling") == 2


def test_a_board_that_stays_hot_is_measured_anyhow_with_a_note():
    bench = Bench()
    bench.board.temperatures = [50.0]
    bench.board.celsius = 60.0
    *_, (result,) = measured(bench, replace(QUICK, cool_limit_s=5.0))
    assert any("did not cool" in note for note in result.notes)
    assert bench.stages.count("cooling") == 5 * QUICK.trials


def test_a_window_spoilt_by_a_gap_alone_is_measured_again():
    bench = Bench()
    held_up = []

    def live() -> int:
        if len(held_up) == 0 and "trial 2" in bench.stages[-1]:
            held_up.append(bench.clock.now_ns())
            bench.clock._move_to(bench.clock.now_ns() + 100_000_000)
        return 0

    bench.board.live = live
    *_, (result,) = measured(bench)
    assert held_up
    assert result.valid, result.invalid_reasons
    assert result.trials == QUICK.trials
    assert any("measured again" in note for note in result.notes)


@pytest.mark.parametrize(
    ("changes", "text"), [({"n": 0}, "n=0"), ({"trials": 0}, "trials=0"), ({"idle_s": 0.0}, "idle_s=0.0")]
)
def test_settings_that_cannot_be_are_refused(changes, text):
    with pytest.raises(InputError, match=text):
        replace(QUICK, **changes)


def test_nothing_to_answer_is_refused():
    bench = Bench()
    with pytest.raises(InputError, match="measure 1 candidate"):
        bench.measure(candidates=[bench.candidate(inputs=())])


def test_idle_windows_hold_idle_samples_only():
    bench = Bench()
    recording, trace, _ = measured(bench)
    (idle,) = trace.labelled("idle 2")
    inside = (trace.t_ns > idle.t0_ns) & (trace.t_ns < idle.t1_ns)
    assert trace.power_w[inside].max() < 0.5 * (IDLE_W + 3.2)
    assert not (trace.flags & int(SampleFlags.CHIP_RESET)).any()
