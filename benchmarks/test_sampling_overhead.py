"""What it costs the inference to be watched: the INA219 driver on a bus that is as slow as a real one.

Only the bus is made up: its transfers take the time of 48 bits at 400 kHz, in which the processor is free, as it
is while the kernel waits for the I2C controller.
"""

import pytest

from pi_dynn.clock import PerfClock
from pi_dynn.power import build_sampler
from pi_dynn.power.fake import TRANSFER_400_KHZ_S, Constant, FakeBus, Ina219Chip, open_fake
from pi_dynn.stats import bootstrap_interval, median

ROUNDS = 40
ANSWERS = 20
LIMIT = 0.02


@pytest.mark.benchmark(group="sampling")
def test_sampling_takes_less_than_two_percent(benchmark, sessions, inputs):
    session, clock = sessions("auto"), PerfClock()
    full_depth = session.forced_thresholds(session.exits)
    chip = Ina219Chip(clock, Constant(3.0))

    def block_s() -> float:
        start_ns = clock.now_ns()
        for i in range(ANSWERS):
            session.classify(inputs[i % len(inputs)], full_depth)
        return (clock.now_ns() - start_ns) * 1e-9

    def watched_s() -> float:
        with open_fake(clock=clock, bus=FakeBus(chip, clock, transfer_s=TRANSFER_400_KHZ_S)) as meter:
            sampler = build_sampler(meter, clock)
            with sampler:
                return block_s()

    def pair(number: int) -> float:
        """The share of time that watching adds; who goes first changes, so that a drift cancels."""
        if number % 2 == 0:
            alone_s, both_s = block_s(), watched_s()
        else:
            both_s, alone_s = watched_s(), block_s()
        return both_s / alone_s - 1.0

    block_s()
    shares = [pair(number) for number in range(ROUNDS)]
    low, high = bootstrap_interval(shares)
    benchmark.extra_info.update(sampling_share=median(shares), sampling_share_ci95=[low, high])
    benchmark(session.classify, inputs[0], full_depth)
    assert low < LIMIT, f"watching takes {median(shares):.1%} ({low:.1%} .. {high:.1%}) of an inference"
