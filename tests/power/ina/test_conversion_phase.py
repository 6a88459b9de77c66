"""The phase of a free-running converter, against one whose true phase is known."""

import random

import pytest

from pi_dynn.power.ina.conversion_phase import ConversionPhase

NOMINAL_NS = 4_792_000


class Converter:
    """Completes a conversion every `cycle_ns`; ready until cleared. Polled by a follower under test."""

    def __init__(self, cycle_ns, late_ns=lambda: 0):
        self.cycle_ns, self.late_ns = cycle_ns, late_ns
        self.phase = ConversionPhase(NOMINAL_NS)
        self.phase.restart(0)
        self.cleared_ns = 0
        self.polls = 0
        self.errors_ns = []

    def follow(self, conversions):
        while len(self.errors_ns) < conversions:
            polled_ns = self.phase.due_ns + self.late_ns()
            self.polls += 1
            done_ns = polled_ns // self.cycle_ns * self.cycle_ns
            if done_ns <= self.cleared_ns:
                self.phase.not_ready(polled_ns)
                continue
            self.cleared_ns = polled_ns + 250_000
            self.errors_ns.append(self.phase.ready(polled_ns, self.cleared_ns) - done_ns)
        return self


@pytest.mark.parametrize("oscillator", [0.9, 0.95, 1.0, 1.03, 1.1])
def test_it_learns_the_cycle_and_needs_one_poll_for_each_conversion(oscillator):
    converter = Converter(round(oscillator * NOMINAL_NS)).follow(100)
    assert converter.phase.cycle_ns == pytest.approx(converter.cycle_ns, rel=0.01)
    polls_before = converter.polls
    converter.errors_ns.clear()
    converter.follow(500)
    assert converter.polls - polls_before < 1.25 * 500
    assert max(map(abs, converter.errors_ns)) < NOMINAL_NS / 12


@pytest.mark.parametrize("oscillator", [0.92, 1.0, 1.08])
def test_hold_ups_do_not_confuse_it(oscillator):
    rng = random.Random(3)
    late_ns = lambda: rng.choice([0] * 30 + [2_000_000, 9_000_000, 60_000_000])  # noqa: E731
    converter = Converter(round(oscillator * NOMINAL_NS), late_ns).follow(2000)
    assert converter.phase.cycle_ns == pytest.approx(converter.cycle_ns, rel=0.02)
    errors_ns = sorted(map(abs, converter.errors_ns))
    assert errors_ns[len(errors_ns) // 2] < NOMINAL_NS / 12
    assert errors_ns[-1] <= converter.cycle_ns + NOMINAL_NS / 12


def test_completions_rise():
    rng = random.Random(5)
    converter = ConversionPhase(NOMINAL_NS)
    converter.restart(0)
    last_ns = t_ns = 0
    for _ in range(500):
        t_ns += rng.randrange(1_000, 12_000_000)
        if rng.random() < 0.5:
            converter.not_ready(t_ns)
            continue
        done_ns = converter.ready(t_ns, t_ns + 1)
        assert last_ns < done_ns <= t_ns
        last_ns = done_ns


def test_what_is_learned_stays_within_reason():
    converter = ConversionPhase(NOMINAL_NS)
    converter.restart(0)
    for number in range(1, 200):
        converter.ready(number * 1_000_000, number * 1_000_000)
    assert converter.cycle_ns >= 0.85 * NOMINAL_NS - 1
