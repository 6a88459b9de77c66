"""What it costs the inference to be watched by an INA219.

Two figures, for they have different owners. The work of one sample (driver and sampler) is ours, and must take less
than 2 % of the time between samples. What an inference loses in all is kept with the benchmark: waking a thread
twice per sample is up to the kernel, and on a busy or a virtual machine it is most of the loss.
"""

import time

import pytest

from pi_dynn.clock import PerfClock
from pi_dynn.power import build_sampler
from pi_dynn.power.fake import TRANSFER_400_KHZ_S
from pi_dynn.power.ina.ina219 import BUS, POWER, SHUNT, Ina219
from pi_dynn.power.ina.ina219_settings import Ina219Settings
from pi_dynn.power.meter import SIMULATED
from pi_dynn.stats import bootstrap_interval, median

ROUNDS = 20
ANSWERS = 10
STEPS = 2000
LIMIT = 0.02
_READY = 0x0002


class Wire:
    """An INA219's registers as cheap as can be: the simulated chip would itself cost more than the driver.

    A transfer takes `transfer_s`, in which the processor is free, as it is while the kernel waits for the I2C
    controller. A new conversion is ready every `period_s`.
    """

    name = "made-up wire"

    def __init__(self, transfer_s: float, period_s: float) -> None:
        self._transfer_s, self._period_s = transfer_s, period_s
        self._words = {0: 0x399F, 4: 0, 5: 0, SHUNT: 6000, POWER: 900}
        self._taken_s = 0.0

    def read_word(self, register: int) -> int:
        if self._transfer_s:
            time.sleep(self._transfer_s)
        if register == BUS:
            return 1275 << 3 | (_READY if time.perf_counter() - self._taken_s >= self._period_s else 0)
        if register == POWER:
            self._taken_s = time.perf_counter()
        return self._words.get(register, 0)

    def write_word(self, register: int, value: int) -> None:
        self._words[register] = value

    def close(self) -> None:
        """There is nothing behind it."""


def open_wire(clock, transfer_s: float, period_s: float) -> Ina219:
    settings = Ina219Settings(rephase_every=32 if period_s else 0)  # asleep it would take no samples to be timed
    return Ina219(Wire(transfer_s, period_s), clock, settings, name="wire", label=SIMULATED)


@pytest.mark.benchmark(group="sampling")
def test_one_sample_takes_less_than_two_percent_of_its_period(benchmark):
    meter = open_wire(PerfClock(), 0.0, 0.0)
    sampler = build_sampler(meter, PerfClock())
    benchmark(sampler.step)
    before, start_s = len(sampler.trace().t_ns), time.process_time()
    for _ in range(STEPS):
        sampler.step()
    share = (time.process_time() - start_s) / STEPS / meter.info.nominal_period_s
    assert len(sampler.trace().t_ns) == before + STEPS  # every step took a sample
    benchmark.extra_info["sampling_share_of_one_core"] = share
    assert share < LIMIT, f"one sample takes {share:.1%} of its period"


@pytest.mark.benchmark(group="sampling")
def test_watched_inference(benchmark, sessions, inputs):
    session, clock = sessions("auto"), PerfClock()
    full_depth = session.forced_thresholds(session.exits)

    def block_s() -> float:
        start_ns = clock.now_ns()
        for i in range(ANSWERS):
            session.classify(inputs[i % len(inputs)], full_depth)
        return (clock.now_ns() - start_ns) * 1e-9

    def watched_s() -> float:
        with open_wire(clock, TRANSFER_400_KHZ_S, 4.79e-3) as meter, build_sampler(meter, clock):
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
    benchmark.extra_info.update(watching_adds=median(shares), watching_adds_ci95=list(bootstrap_interval(shares)))
    with open_wire(clock, TRANSFER_400_KHZ_S, 4.79e-3) as meter, build_sampler(meter, clock):
        answer = benchmark(session.classify, inputs[0], full_depth)
    assert answer.exit_index == session.exits
