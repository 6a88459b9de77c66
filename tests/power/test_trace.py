"""The trace record: nothing lost on the way to a file and back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn.errors import InputError, TraceInvalid
from pi_dynn.power import MeterInfo, Span, ThrottleMark, Trace, load_trace

INFO = MeterInfo("ina219", "board input", ("VIN-",), 5e-4, 4.792e-3, True, "MEASURED", shunt_ohm=0.1)


def trace_of(power_w=None, **fields):
    count = 3 if power_w is None else len(power_w)
    columns = {
        "t_ns": np.arange(count, dtype=np.int64) * 4_792_000,
        "power_w": None if power_w is None else np.asarray(power_w, dtype=float),
        "counter_j": None,
        "voltage_v": np.full(count, 5.1),
        "current_a": np.full(count, np.nan),
        "flags": np.zeros(count, dtype=np.int64),
    }
    return Trace(INFO, **{**columns, **fields})


@given(st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=20))
def test_a_dictionary_and_back_changes_no_bit(power_w):
    trace = trace_of(
        power_w, spans=(Span(1, 2**62, "run"),), throttle=(ThrottleMark(5, 0x50005),), retries=2, error="unplugged"
    )
    fields = json.loads(json.dumps(trace.to_dict(), allow_nan=False))
    again = Trace.from_dict(fields)
    assert again.to_dict() == trace.to_dict()
    assert again.spans[0].label == "run"
    assert again.throttle[0].bits == 0x50005
    assert again.t_ns.dtype == np.int64


def test_a_file_and_back(tmp_path):
    trace = trace_of([3.0, 3.1, 3.2])
    trace.save(tmp_path / "deep" / "trace.json")
    assert load_trace(tmp_path / "deep" / "trace.json").to_dict() == trace.to_dict()


def test_the_trace_inside_a_saved_run(tmp_path):
    trace = trace_of([3.0, 3.1])
    (tmp_path / "run.json").write_text(json.dumps({"net_j": 1.0, "trace": trace.to_dict()}))
    assert load_trace(tmp_path / "run.json").to_dict() == trace.to_dict()


def test_what_was_there_survives_a_failed_save(tmp_path, monkeypatch):
    path = tmp_path / "trace.json"
    trace_of([1.0, 2.0]).save(path)
    before = path.read_bytes()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        trace_of([3.0]).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_spans_by_label():
    trace = replace(trace_of([1.0, 2.0]), spans=(Span(0, 5, "idle"), Span(5, 9, "run"), Span(9, 12, "idle")))
    assert trace.labelled("idle") == (Span(0, 5, "idle"), Span(9, 12, "idle"))
    assert trace.labelled("idle")[1].duration_s == pytest.approx(3e-9)
    assert trace.labelled("none") == ()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"t_ns": np.array([0, 2, 1])}, "do not rise"),
        ({"t_ns": np.array([0, 1, 1])}, "do not rise"),
        ({"t_ns": np.array([0, 1])}, "differ in length"),
        ({"counter_j": np.zeros(3)}, "nothing else"),
        ({"power_w": None}, "nothing else"),
    ],
)
def test_columns_that_do_not_fit(fields, words):
    with pytest.raises(TraceInvalid, match=words):
        trace_of(**{"power_w": [1.0, 2.0, 3.0], **fields})


def test_a_damaged_file_is_named_as_such():
    fields = trace_of([1.0, 2.0]).to_dict()
    for damage in ({"power_w": ["x", "y"]}, {"info": {"name": "ina219"}}, {"spans": [[1, 2]]}):
        with pytest.raises((TraceInvalid, ValueError)):
            Trace.from_dict({**fields, **damage})


def test_only_a_measurement_is_measured():
    with pytest.raises(InputError, match="only MEASURED is measured"):
        replace(INFO, label="SIMULATED")
    with pytest.raises(InputError, match="'REAL'"):
        replace(INFO, label="REAL")


def test_joules_of_a_span_for_people():
    step_ns = 4_792_000
    spans = (Span(0, step_ns, "work"), Span(step_ns, 3 * step_ns, "rest"), Span(2 * step_ns, 3 * step_ns, "work"))
    trace = trace_of([2.0, 2.0, 2.0, 2.0], spans=spans)
    assert trace.energy_j("work") == pytest.approx(2 * 2.0 * step_ns * 1e-9)
    assert trace.energy_j(spans[1]) == pytest.approx(2 * 2.0 * step_ns * 1e-9)
    assert trace.mean_power_w("rest") == pytest.approx(2.0)
    assert trace.cumulative is trace.cumulative
    with pytest.raises(InputError, match="no span 'sleep': it has 'work', 'rest'"):
        trace.energy_j("sleep")


def test_traces_are_compared_by_identity():
    """Arrays have no single answer to whether they are equal."""
    trace = trace_of([3.0, 4.0])
    assert trace in [trace] and trace != replace(trace) and len({trace, replace(trace)}) == 2
