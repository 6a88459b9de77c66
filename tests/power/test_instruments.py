"""CSV files as instruments write them."""

import pytest

from pi_dynn.errors import InputError, MeterNotFound, TraceInvalid
from pi_dynn.power.instruments import load_instrument_trace

FILES = {
    "joulescope": "#time,current,voltage,power\n0.0,0.5,5.0,2.5\n0.5,0.6,5.0,3.0\n1.0,0.7,5.0,3.5\n",
    "otii": 'Timestamp;"Main Current (A)";"Main Voltage (V)"\n10.0;0.5;5.0\n10.5;0.6;5.0\n11.0;0.7;5.0\n',
    "ppk2": "Timestamp(ms),Current(uA),D0-D7\n0.0,500000,0\n500.0,600000,0\n1000.0,700000,1\n",
    "usb meter": "exported by a tool, version 2\nTime [s],Voltage [V],Current [mA]\n0,5,500\n0.5,5,600\n1,5,700\n",
    "power only": "time_s,power_mw\n3.0,2500\n3.5,3000\n4.0,3500\n",
}


@pytest.mark.parametrize("name", FILES)
def test_columns_are_found_and_put_into_si_units(tmp_path, name):
    path = tmp_path / "trace.csv"
    path.write_text(FILES[name])
    trace = load_instrument_trace(path, name, volts=5.0 if name == "ppk2" else None)
    assert trace.t_ns.tolist() == [0, 500_000_000, 1_000_000_000]
    assert trace.power_w.tolist() == pytest.approx([2.5, 3.0, 3.5])
    assert trace.info.nominal_period_s == pytest.approx(0.5)
    assert (trace.info.name, trace.info.label, trace.info.measured) == (name, "MEASURED", True)
    if name != "power only":
        assert trace.current_a.tolist() == pytest.approx([0.5, 0.6, 0.7])


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("a,b\n1,2\n", TraceInvalid, "no header"),
        ("current (A),power (W)\n1,2\n2,3\n", TraceInvalid, "no column of times"),
        ("time (s),current (A)\n0,1\n1,1\n", InputError, "--trace-volts"),
        ("time (s),power (hp)\n0,1\n1,1\n", TraceInvalid, "unit 'hp'"),
        ("time (s),power (W)\n0,1\n0,1\n", TraceInvalid, "do not all rise"),
        ("time (s),power (W)\n0,1\n", TraceInvalid, "1 samples"),
        ("time (s),power (W)\n0,1\n1,much\n", TraceInvalid, "no number in column 2"),
        ("time (s),power (W)\n0,1\n1\n", TraceInvalid, "no number in column 2"),
    ],
)
def test_files_that_are_no_trace(tmp_path, text, error, why):
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(error, match=why):
        load_instrument_trace(tmp_path / "trace.csv", "meter")


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(MeterNotFound, match="check the path"):
        load_instrument_trace(tmp_path / "none.csv", "meter")
    (tmp_path / "trace.csv").write_bytes(bytes(range(256)))
    with pytest.raises(TraceInvalid, match="not text"):
        load_instrument_trace(tmp_path / "trace.csv", "meter")
