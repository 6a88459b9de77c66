"""Every record of the package, converted to JSON and back."""

import json
import types
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pi_dynn
from pi_dynn.board import BoardSnapshot
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.errors import InputError
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.latency.records import BoardBenchmark, LatencyRow, Profile, ProfileStep
from pi_dynn.power import MeterInfo, Span, ThrottleMark, Trace
from pi_dynn.records import Finding, Prediction, Record, file_kind, kind_of, read_record
from pi_dynn.runtime.gate_values import Gate
from pi_dynn.runtime.manifest import Manifest
from pi_dynn.train.recipe import Recipe

ROOT = Path(pi_dynn.__file__).parent
for path in ROOT.rglob("*.py"):
    if "(Record)" in path.read_text():
        import_module(".".join(("pi_dynn", *path.relative_to(ROOT).with_suffix("").parts)))


def subclasses(record: type) -> list[type]:
    return [one for child in record.__subclasses__() for one in (child, *subclasses(child))]


RECORDS = sorted(
    (one for one in subclasses(Record) if one.__module__.startswith("pi_dynn")), key=lambda one: one.__name__
)
METER = MeterInfo("ina219", "board input", ("VIN-",), 5e-4, 4.8e-3, True, "MEASURED", shunt_ohm=0.1, notes=("a", "b"))
STEP = ProfileStep("block", 3, 5, 0.3, 0.06, 0.5, 9, 8, 7, None)
NAN = np.full(2, np.nan)
BOARD = BoardSnapshot("Pi", "aarch64", "6", "3", 4, None, None, 1.5e9, None, None, 2, 1, None, 0.0, None)
ROW = LatencyRow("full", "none taken", 1, 5, 0.1, 0.2, 0.3, (0.1, 0.2), 1.0)
EXAMPLES = {  # of records that refuse most values
    Gate: Gate("learned", 0.5, [1.0, -2.0, 0.5, 0.25, 3.0]),
    BoardBenchmark: BoardBenchmark("net", "ab", 8, ["x86"], {"torch": "2"}, BOARD, BOARD, [ROW]),
    Evaluation: Evaluation("ucm", 4, 0, 0.5, 1.0, 0.7, 0.75, 8.5, 9, [], [0.5], "fp32", "fp32", "net.pt", 0.25),
    MeterInfo: METER,
    Manifest: Manifest("net", {"exits": [1]}, ["a"], {"size": 8}, 4, [1], [0.5], [7, 9], "fp32", None, "ab", "0", "2"),
    Preprocess: Preprocess(8, 0.5, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
    ProfileStep: STEP,
    Profile: Profile("net", "ab", "int8", "x86", 1, 5, 0.001, 1.01, (1.0, 1.02), [5], [3], [STEP], None),
    Recipe: Recipe(3, warmup_steps=2),
    Trace: Trace(
        *(METER, np.array([0, 5]), np.array([1.0, 2.5]), None, NAN, NAN, np.zeros(2, np.int64)),
        spans=(Span(1, 2**62, "run"),),
        throttle=(ThrottleMark(5, 0x50005),),
    ),
}
PLAIN = {
    str: st.text(max_size=8),
    bool: st.booleans(),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    **{record: st.just(example) for record, example in EXAMPLES.items()},
    Any: st.none() | st.integers(0, 9) | st.lists(st.text(max_size=3), max_size=2),
}


def values_of(hint: Any) -> st.SearchStrategy:
    """Values that a type hint allows."""
    inner = get_args(hint)
    generic = {
        Literal: lambda: st.sampled_from(inner),
        Union: lambda: st.one_of(*map(values_of, inner)),
        list: lambda: st.lists(values_of(inner[0]), max_size=3),
        dict: lambda: st.dictionaries(*map(values_of, inner), max_size=3),
        tuple: lambda: values_of(list[inner[0]]).map(tuple) if ... in inner else st.tuples(*map(values_of, inner)),
    }
    generic[types.UnionType] = generic[Union]
    if inner:
        return generic[get_origin(hint)]()
    if hint in PLAIN:
        return PLAIN[hint]
    hints = get_type_hints(hint)
    return st.builds(hint, **{field.name: values_of(hints[field.name]) for field in fields(hint)})


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
@given(data=st.data())
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
def test_a_record_comes_back_from_json(record, data):
    one = data.draw(values_of(record))
    plain = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    again = record.from_dict(plain)
    assert type(again) is record and again.to_dict() == one.to_dict()  # where tuples are tuples and lists lists
    assert (
        list(plain)[:2] == ["kind", "schema"] if record.KIND else {"kind", "schema"}.isdisjoint(set(plain) - names(one))
    )


def names(record: Record) -> set[str]:
    return {field.name for field in fields(record)}


def test_no_two_records_say_the_same_kind():
    kinds = [record.KIND for record in RECORDS if record.KIND]
    assert len(RECORDS) > 50 and len(kinds) > 20 and len(set(kinds)) == len(kinds)


def test_an_array_comes_back_with_its_type_and_gaps():
    trace = Trace.from_dict(json.loads(json.dumps(EXAMPLES[Trace].to_dict())))
    assert (trace.t_ns.dtype, trace.power_w.dtype, trace.flags.dtype) == (np.int64, np.float64, np.int64)
    assert np.isnan(trace.voltage_v).all() and trace.spans[0].label == "run"


ANSWER = Prediction("ant", 0, 0.9, 1, 3, 0.8, 0.01, [("ant", 0.9)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "finding"}, "it is of the kind 'finding'"),
        ({"schema": 2}, "it has schema 2, and this version reads 1"),
        ({"label": None}, r"Expected `str`, got `null` - at `\$.label`"),
        ({"top": [["ant"]]}, r"of length 2, got 1 - at `\$.top"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(change, reason, tmp_path):
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(ANSWER.to_dict() | change))
    with pytest.raises(InputError, match=f"answer.json: no prediction, or a damaged one .*{reason}.*; classify again"):
        read_record(Prediction, path, InputError, "classify again")


def test_files_say_their_kind(tmp_path):
    path = tmp_path / "finding.json"
    assert file_kind(path) == ""
    for text, kind in ((json.dumps(Finding("a", "b", "c").to_dict()), "finding"), ("{", ""), ("[]", ""), ("{}", "")):
        path.write_text(text)
        assert file_kind(path) == kind
    with pytest.raises(FileNotFoundError):
        read_record(Finding, tmp_path / "none.json", InputError, "look again", FileNotFoundError)
    assert kind_of(replace(ANSWER, top=[]).to_dict()) == "prediction"
