"""A saved trace, played back in its own time."""

from dataclasses import replace

import numpy as np
import pytest

from pi_dynn.errors import InputError, MeterNotFound, TraceInvalid
from pi_dynn.power import open_meter
from pi_dynn.power.fake import Ramp


@pytest.fixture
def saved(open_chip, sample, tmp_path):
    trace = sample(open_chip(Ramp(2.0, 0.3)), 2.0)
    path = tmp_path / "run.json"
    trace.save(path)
    return trace, path


def test_the_same_samples_in_the_same_rhythm(saved, clock, sample):
    trace, path = saved
    clock.sleep(100.0)
    again = sample(open_meter(f"replay:{path}", clock=clock), 3.0)
    assert np.array_equal(np.diff(again.t_ns), np.diff(trace.t_ns))
    assert np.array_equal(again.power_w, trace.power_w)
    assert np.array_equal(again.voltage_v, trace.voltage_v)
    shift_ns = int(again.t_ns[0] - trace.t_ns[0])
    window_ns = (500_000_000, 1_500_000_000)
    assert again.cumulative.between(*(t + shift_ns for t in window_ns)) == pytest.approx(
        trace.cumulative.between(*window_ns)
    )


def test_the_end_of_the_recording_ends_the_sampling(saved, clock, sample):
    trace, path = saved
    again = sample(open_meter(f"replay:{path}", clock=clock), 60.0)
    assert len(again.t_ns) == len(trace.t_ns)
    assert "is over" in again.error


def test_a_replay_is_never_a_measurement(saved, clock):
    trace, path = saved
    real = replace(trace.info, name="ina219", measured=True, label="MEASURED")
    trace = replace(trace, info=real)
    trace.save(path)
    meter = open_meter(f"replay:{path}", clock=clock)
    assert (meter.info.label, meter.info.measured) == ("SIMULATED", False)
    assert meter.info.name == f"replay:{path}"
    assert meter.recorded.info == real  # whose own figures stay measured
    assert meter.info.notes[-1] == "recorded with ina219 (MEASURED)"


def test_a_counter_is_replayed_as_a_counter(clock, sample, lay_out, tmp_path):
    trace = sample(open_meter("rapl", root=lay_out("laptop"), clock=clock), 1.0)
    trace.save(tmp_path / "rapl.json")
    again = sample(open_meter(f"replay:{tmp_path / 'rapl.json'}", clock=clock), 0.5)
    assert again.power_w is None
    assert len(again.counter_j) > 10


def test_a_csv_log_of_another_meter(clock, sample, tmp_path):
    path = tmp_path / "usb.csv"
    path.write_text("t_s,power_w,voltage_v\n" + "".join(f"{k / 25},{3 + k / 100},5.1\n" for k in range(100)))
    trace = sample(open_meter(f"replay:{path}", clock=clock), 3.0)
    assert trace.power_w[:3] == pytest.approx([3.0, 3.01, 3.02])
    assert trace.info.nominal_period_s == pytest.approx(0.04)
    assert np.isnan(trace.current_a).all()


@pytest.mark.parametrize(
    ("name", "text", "kind", "words"),
    [
        ("a.json", "{", TraceInvalid, "damaged"),
        ("a.json", "[]", TraceInvalid, "no power trace"),
        ("a.json", '{"schema": "pi_dynn.trace/9"}', TraceInvalid, "pi_dynn.trace/9"),
        ("a.json", '{"schema": "pi_dynn.trace/1"}', TraceInvalid, "damaged"),
        ("a.csv", "seconds,watts\n0,3\n", TraceInvalid, "t_s and power_w"),
        ("a.csv", "t_s,power_w\n0,3\n", TraceInvalid, "1 samples"),
        ("a.csv", "t_s,power_w\n0,3\n1,much\n", TraceInvalid, "much"),
    ],
)
def test_files_that_are_no_trace(tmp_path, name, text, kind, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(kind, match=words):
        open_meter(f"replay:{tmp_path / name}")


def test_no_file(tmp_path):
    with pytest.raises(MeterNotFound, match="check the path"):
        open_meter(f"replay:{tmp_path / 'none.json'}")
    with pytest.raises(InputError, match="replay:FILE"):
        open_meter("replay")


def test_an_empty_trace_cannot_be_replayed(open_chip, sample, tmp_path):
    sample(open_chip(), 0.0).save(tmp_path / "empty.json")
    with pytest.raises(TraceInvalid, match="2 or more"):
        open_meter(f"replay:{tmp_path / 'empty.json'}")


def test_what_the_meter_did_not_give_is_none(clock, tmp_path):
    (tmp_path / "trace.csv").write_text("t_s,power_w,voltage_v\n0.0,2.0,5.0\n0.1,2.1,\n")
    meter = open_meter(f"replay:{tmp_path / 'trace.csv'}", clock=clock)
    first = meter.read()
    clock.advance(0.1)
    second = meter.read()
    assert (first.voltage_v, first.current_a) == (5.0, None)
    assert (second.voltage_v, second.current_a) == (None, None)
