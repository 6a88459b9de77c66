"""The sampler, in a thread and on simulated time, and a meter that fails in every way."""

import re
import threading

import numpy as np
import pytest

from pi_dynn.clock import FakeClock, PerfClock
from pi_dynn.errors import MeterBusError
from pi_dynn.power import (
    EnergyMeter,
    MeterInfo,
    PowerSample,
    SampleFlags,
    Sampler,
    Span,
    SteppedSampler,
    build_sampler,
    check_trace,
    open_meter,
)
from pi_dynn.power.fake import TRANSFER_400_KHZ_S, Constant, Ramp, Switched

INFO = MeterInfo("plain", "board input", (), 0.0, 0.01, False, "SIMULATED")


class PlainMeter(EnergyMeter):
    """A meter without a `due_ns` of its own."""

    def __init__(self, clock, read=lambda t_ns: PowerSample(t_ns, 3.0)):
        self.info = INFO
        self._clock = clock
        self._read = read

    def read(self):
        return self._read(self._clock.now_ns())


# On simulated time


def test_rate_and_spans_on_simulated_time(open_chip, clock):
    meter = open_chip(Switched(2.0))
    with SteppedSampler(meter, clock) as sampler:
        with sampler.span("idle"):
            clock.sleep(2.0)
        meter.set_load_w(4.0)
        with sampler.span("run"):
            clock.sleep(3.0)
    trace = sampler.trace()
    quality = check_trace(trace)
    assert quality.valid
    assert quality.sample_rate_hz == pytest.approx(206, abs=4)
    idle, run = trace.labelled("idle")[0], trace.labelled("run")[0]
    assert (idle.duration_s, run.duration_s) == pytest.approx((2.0, 3.0))
    assert trace.cumulative.between(run.t0_ns, run.t1_ns) == pytest.approx(12.0, rel=3e-3)


def test_transfers_that_take_their_time(open_chip, sample):
    trace = sample(open_chip(Ramp(2.0, 0.1), bus={"transfer_s": TRANSFER_400_KHZ_S}), 5.0)
    quality = check_trace(trace)
    assert quality.valid
    assert quality.sample_rate_hz > 200
    assert trace.cumulative.between(10**9, 4 * 10**9) == pytest.approx(3 * 2.0 + 0.1 * (16 - 1) / 2, rel=3e-3)


def test_a_meter_without_a_schedule_is_read_on_a_grid(clock, sample):
    trace = sample(PlainMeter(clock), 1.0)
    assert np.unique(np.diff(trace.t_ns)).tolist() == [10_000_000]


def test_a_hold_up_is_not_followed_by_a_burst(clock, sample):
    def read(t_ns):
        if 300_000_000 <= t_ns < 310_000_000:
            clock.sleep(0.2)
        return PowerSample(t_ns, 3.0)

    steps_ns = np.diff(sample(PlainMeter(clock, read), 1.0).t_ns)
    assert steps_ns.max() > 200_000_000
    assert steps_ns.min() >= 10_000_000


def test_stale_reads_are_counted_and_no_samples(clock, sample):
    state = {"last": 0}

    def read(t_ns):
        if t_ns - state["last"] < 20_000_000:
            return None
        state["last"] = t_ns
        return PowerSample(t_ns, 3.0)

    trace = sample(PlainMeter(clock, read), 1.0)
    assert len(trace.t_ns) == pytest.approx(50, abs=3)
    assert trace.stale_reads > 50


def test_samples_out_of_order_are_dropped(clock, sample):
    trace = sample(PlainMeter(clock, lambda t_ns: PowerSample(t_ns // 50_000_000, 3.0)), 1.0)
    assert (np.diff(trace.t_ns) > 0).all()
    assert trace.stale_reads > 50


# Throttling


@pytest.mark.parametrize(("bits_later", "words"), [(0x50005, "throttled during"), (0x40000, "state changed")])
def test_throttled_in_the_middle_is_seen(open_chip, clock, sample, bits_later, words):
    trace = sample(open_chip(), 5.0, throttle_bits=lambda: 0 if clock.now_ns() < 2.5e9 else bits_later)
    reasons = check_trace(trace).invalid_reasons
    assert any(words in reason for reason in reasons)
    assert len(trace.t_ns) > 900
    assert [mark.bits for mark in trace.throttle] == [0, bits_later]


def test_a_board_without_throttle_bits(open_chip, sample):
    trace = sample(open_chip(), 2.5, throttle_bits=lambda: None)
    assert trace.throttle == ()
    assert check_trace(trace).valid


def test_the_firmware_is_asked_once_a_second(open_chip, clock, sample):
    calls_ns = []
    sample(open_chip(), 4.5, throttle_bits=lambda: calls_ns.append(clock.now_ns()) or 0)
    assert 4 <= len(calls_ns) <= 6


# Faults in the middle of a run: invalid with its reason, the trace kept, nothing hung


def unplug(meter):
    meter.bus.unplug()


def brown_out(meter):
    meter.chip.brown_out()


def clip(meter):
    meter.set_load_w(50.0)


FAULTS = {
    "NACK from some transfer on": (unplug, "ended early: .*failed 4 times", True),
    "chip reset": (brown_out, "chip reset 1 times", False),
    "clipped current": (clip, "clipped samples", False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_middle(open_chip, clock, name):
    inflict, words, ends = FAULTS[name]
    meter = open_chip(Switched(3.0))
    with meter, SteppedSampler(meter, clock) as sampler:
        with sampler.span("good"):
            clock.sleep(2.0)
        clock.sleep(0.1)
        inflict(meter)
        with sampler.span("bad"):
            clock.sleep(2.0)
    trace = sampler.trace()
    good, bad = trace.labelled("good")[0], trace.labelled("bad")[0]
    assert any(re.search(words, reason) for reason in check_trace(trace, bad).invalid_reasons)
    assert check_trace(trace, good).valid is not ends  # an ended sampling spoils all of it
    assert trace.cumulative.between(good.t0_ns, good.t1_ns) == pytest.approx(6.0, rel=3e-3)
    assert (sampler.failed is not None) is ends
    assert (len(trace.t_ns) > 700) is not ends


@pytest.mark.parametrize("transfer", [50, 51, 52, 53, 300, 301, 302, 303])
def test_unplugged_at_any_transfer(open_chip, sample, transfer):
    trace = sample(open_chip(bus={"nack_from": transfer}), 3.0)
    assert "failed 4 times" in trace.error
    assert len(trace.t_ns) > 3
    assert not check_trace(trace).valid


def test_a_reset_hidden_behind_an_old_time_stamp_is_kept(clock, sample):
    def read(t_ns):
        if t_ns > 500_000_000:
            return PowerSample(1, 3.0, flags=SampleFlags.CHIP_RESET)
        return PowerSample(t_ns, 3.0)

    assert check_trace(sample(PlainMeter(clock, read), 1.0)).resets == 1


def test_an_unforeseen_error_ends_the_sampling_and_is_named(clock, sample):
    def read(t_ns):
        raise ZeroDivisionError("in the driver")

    trace = sample(PlainMeter(clock, read), 1.0)
    assert trace.error == "ZeroDivisionError: in the driver"


@pytest.mark.parametrize(("error", "words"), [(KeyboardInterrupt(), "interrupted"), (OSError("disk"), "OSError: disk")])
def test_interrupted_work_is_marked(open_chip, clock, error, words):
    with pytest.raises(type(error)), SteppedSampler(open_chip(), clock) as sampler, sampler.span("run"):
        clock.sleep(1.0)
        raise error
    trace = sampler.trace()
    assert trace.error == words
    assert trace.labelled("run")[0].duration_s == pytest.approx(1.0, rel=1e-2)
    assert len(trace.t_ns) > 150


# In a thread. No assertion about how long anything takes: only that it happens, and ends.


def test_a_thread_samples_while_others_work():
    enough = threading.Event()
    clock = PerfClock()
    times_ns = []

    def read(t_ns):
        times_ns.append(t_ns)
        if len(times_ns) >= 20:
            enough.set()
        return PowerSample(t_ns, 3.0)

    with Sampler(PlainMeter(clock, read), clock) as sampler:
        assert enough.wait(60)
    trace = sampler.trace()
    assert trace.error is None
    assert len(trace.t_ns) >= 20
    assert trace.cumulative.between(int(trace.t_ns[0]), int(trace.t_ns[-1])) > 0


def test_the_fake_chip_on_the_real_clock():
    clock, enough = PerfClock(), threading.Event()
    with open_meter("fake", clock=clock, load=Constant(3.0)) as meter:
        read, readings = meter.read, []

        def counting_read():
            reading = read()
            if reading is not None:
                readings.append(reading)
            if len(readings) >= 10:
                enough.set()
            return reading

        meter.read = counting_read
        with Sampler(meter, clock) as sampler:
            assert enough.wait(60)
    assert sampler.trace().power_w == pytest.approx(3.0, abs=3e-3)


def test_a_thread_whose_meter_is_unplugged_ends_by_itself():
    clock = PerfClock()

    def read(t_ns):
        raise MeterBusError("gone")

    sampler = Sampler(PlainMeter(clock, read), clock)
    sampler.start()
    sampler._thread.join(60)
    assert not sampler._thread.is_alive()
    assert sampler.stop().error == "gone"


def test_a_meter_that_hangs_is_left_behind():
    clock, stuck, release = PerfClock(), threading.Event(), threading.Event()

    def read(t_ns):
        stuck.set()
        release.wait(60)
        return PowerSample(t_ns, 3.0)

    sampler = Sampler(PlainMeter(clock, read), clock, stop_timeout_s=0.05)
    sampler.start()
    assert stuck.wait(60)
    try:
        assert "did not answer" in sampler.stop().error
    finally:
        release.set()


def test_stopping_twice_and_reading_the_trace_meanwhile(open_chip, clock):
    sampler = SteppedSampler(open_chip(), clock)
    sampler.start()
    clock.sleep(0.5)
    early = sampler.trace()
    clock.sleep(0.5)
    late = sampler.stop()
    assert 0 < len(early.t_ns) < len(late.t_ns)
    clock.sleep(1.0)
    assert len(sampler.stop().t_ns) == len(late.t_ns)
    assert sampler.step() is None


def test_a_plain_fake_clock_drives_the_steps_by_hand():
    clock = FakeClock()
    sampler = Sampler(PlainMeter(clock), clock)
    for _ in range(100):
        due_ns = sampler.step()
        clock.advance((due_ns - clock.now_ns()) * 1e-9)
    assert len(sampler.trace().t_ns) == 100


def test_the_sampler_that_fits_the_clock(clock):
    assert type(build_sampler(PlainMeter(clock), clock)) is SteppedSampler
    assert type(build_sampler(PlainMeter(clock), PerfClock(), stop_timeout_s=1.0)) is Sampler
    assert type(build_sampler(PlainMeter(clock), FakeClock())) is Sampler


def test_a_window_needs_only_the_samples_since_it_began(open_chip, clock):
    with SteppedSampler(open_chip(Ramp(2.0, 0.1)), clock) as sampler:
        clock.sleep(2.0)
        start_ns = clock.now_ns()
        clock.sleep(0.5)
        window = Span(start_ns, clock.now_ns(), "run")
        part, whole = sampler.trace_since(start_ns), sampler.trace()
    assert len(part.t_ns) < len(whole.t_ns) / 3
    assert part.energy_j(window) == pytest.approx(whole.energy_j(window), rel=1e-12)
    assert check_trace(part, window) == check_trace(whole, window)
