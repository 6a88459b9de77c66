"""Files of every kind as version 0.1 wrote them: they load with the same values.

They are of a network of three tiny blocks on 36 pictures of noise; the meter is the simulated one.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from pi_dynn import Session, load_bundle
from pi_dynn.calibrate.records import CalibrationRecord, RuleResult, find_records, load_record
from pi_dynn.classify.records import ClassifySummary
from pi_dynn.data.folders import ImageFolder, load_split
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.energy.records import EnergyResult
from pi_dynn.energy.runs import is_run, replay_run
from pi_dynn.evaluate.records import Evaluation, RobustnessResult
from pi_dynn.latency import latency_model
from pi_dynn.latency.records import ColdStart, LatencyCheck, LatencyModel, LatencyRow, Profile
from pi_dynn.models.card import Card, read_card
from pi_dynn.power import load_trace
from pi_dynn.power.certificate import ShuntCertificate, load_certificate
from pi_dynn.records import Prediction, Record
from pi_dynn.report.saved import read_saved
from pi_dynn.runtime import machine_cache
from pi_dynn.runtime.machine_cache import MachineCache
from pi_dynn.train.records import TrainPlan, TrainResult
from pi_dynn.train.run_folder import RunFolder

SAVED = Path(__file__).parent / "data" / "saved_0_1"
BUNDLE = "fddd3bed3999c6a82b275ed830a2779eac6704cc047f1bb0224cf0553d34e8ff"


def objects(name: str) -> list[dict]:
    """The JSON objects of a file, those under a key of their own taken out."""
    text = (SAVED / name).read_text()
    values = [json.loads(text)] if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    return [next(iter(one.values())) if len(one) == 1 else one for one in values]


# Of an energy result: the interval's parts are now the budget, and idle power has windows between all trials.
REMOVED = {"net_sd_j", "idle_sd_w"}
NEW = {field.name for field in dataclasses.fields(EnergyResult) if field.default is not dataclasses.MISSING} | {
    "uncertainty"
}


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("classify.jsonl", [Prediction] * 12 + [None, ClassifySummary]),
        ("evaluate.json", [Evaluation]),
        ("rules.jsonl", [Evaluation, RuleResult, RuleResult]),
        ("robustness.json", [RobustnessResult]),
        ("energy.jsonl", [EnergyResult]),
        ("benchmark.jsonl", [LatencyRow, LatencyRow, LatencyRow, ColdStart]),
        ("profile.json", [Profile]),
        ("profile_fit.jsonl", [LatencyModel, LatencyCheck]),
        ("latency.json", [LatencyModel]),
        ("calibration.json", [CalibrationRecord]),
        ("certificate.json", [ShuntCertificate]),
        ("transfer_plan.jsonl", [TrainPlan]),
        ("transfer.jsonl", [None, None, TrainResult]),
        ("result.json", [TrainResult]),
    ],
)
def test_a_record_says_what_it_said(name: str, records: list[type[Record] | None]):
    for values, record in zip(objects(name), records, strict=False):
        if record is not None:
            now = json.loads(json.dumps(record.from_dict(values).to_dict()))
            said = {key: value for key, value in values.items() if key != "path"}
            if record is LatencyRow:  # whose names counted blocks from one
                said["name"] = said["name"].replace(", block 1", ", block 0")
            gone, new = (REMOVED, NEW) if record is EnergyResult else (set(), set())
            assert {key: now[key] for key in said if key not in gone} == {
                key: value for key, value in said.items() if key not in gone
            }
            assert set(now) - set(values) - new <= {"kind", "schema", "block_index"}


def test_report_knows_each_of_them():
    names = ("energy_run.json", "classify.jsonl", "evaluate.json", "benchmark.jsonl", "profile.json")
    runs = read_saved(SAVED / name for name in names)
    assert [len(kind) for kind in (runs.energy, runs.traces, runs.evaluations, runs.profiles)] == [1] * 4
    assert [len(runs.latencies), len(runs.cold_starts)] == [3, 1]
    (answers,) = runs.answers
    assert (answers.summary.failed, {block: len(times) for block, times in answers.latency_s.items()}) == (
        1,
        {0: 12, 2: 0},
    )
    assert answers.latency_s[0][0] == objects("classify.jsonl")[0]["latency_s"]


def test_an_energy_run_gives_the_same_figures():
    measurement, results = replay_run(SAVED / "energy_run.json")
    results_0_1 = json.loads((SAVED / "energy_run.json").read_text())["results"]
    (now,), (before,) = results, (EnergyResult.from_dict(one) for one in results_0_1)
    # The trials shared two idle windows: their mean is the same, but there is no interval that would cover it.
    assert (now.net_ci95_j, now.resolved, now.exit_sum_ci95_j) == (None, False, None)
    said = ("net_j", "gross_j", "idle_power_w", "active_power_w", "latency_s", "exit_sum_j", "valid", "n", "trials")
    assert [getattr(now, name) for name in said] == pytest.approx([getattr(before, name) for name in said], rel=1e-3)
    assert results[0].net_j == pytest.approx(0.00023151561739383482)
    assert measurement.recording.board.kernel == "6.1.0" and is_run(SAVED / "energy_run.json")
    assert len(load_trace(SAVED / "energy_run.json").t_ns) == len(measurement.trace.t_ns) == 121


def test_a_trace_and_a_certificate():
    trace = load_trace(SAVED / "trace.json")
    assert trace.energy_j("work") == pytest.approx(0.21823517083679997)
    assert load_certificate(SAVED / "certificate.json").gain == 1.01


def test_a_bundle_answers_as_it_did():
    bundle = load_bundle(SAVED / "bundle.pt")
    logits = Session(bundle, threads=1, engine="fp32").forward_all(torch.zeros(1, 3, 16, 16))
    assert bundle.sha256 == BUNDLE and bundle.manifest.macs == [6779, 7971]
    assert logits[0][0].tolist() == pytest.approx([0.138275, 0.208080, -0.144181], abs=1e-4)
    assert logits[1][0].tolist() == pytest.approx([0.018955, 0.044521, 0.027862], abs=1e-4)


def test_a_calibration_record_is_of_its_bundle():
    record = load_record(SAVED / "calibration.json")
    assert find_records(SAVED, BUNDLE) == [record]
    assert (record.thresholds, record.costs, record.curve[0].accuracy) == ([2.0], [6779.0, 7971.0], 1.0)


def test_a_split_and_the_card_of_weights():
    parts = json.loads((SAVED / "split.json").read_text())["parts"]
    names = sorted(name for part in parts.values() for name in part)
    data = ImageFolder(Path("scenes"), ["blue", "green", "red"], [Path("scenes", name) for name in names], [0] * 36)
    assert {name: len(part) for name, part in load_split(SAVED / "split.json", data).items()} == {
        **{"test": 6, "calibrate": 6, "train": 24}
    }
    card = read_card(SAVED / "weights.safetensors")
    assert card.classes == data.classes and card.stages[0]["stage"] == "transfer"


def test_a_run_goes_on_in_its_folder(tmp_path):
    text = (SAVED / "run.json").read_text()
    (tmp_path / "run.json").write_text(text)
    RunFolder(tmp_path, Card("tiny", {}, [], Preprocess(4))).begin(json.loads(text), resume=True)


def test_a_latency_model_is_found_again(monkeypatch):
    (key,) = json.loads((SAVED / "latency.json").read_text())
    monkeypatch.setattr(latency_model, "MODELS", MachineCache(str(SAVED / "latency.json")))
    monkeypatch.setattr(machine_cache, "_key", lambda *_: key)
    session = Session(load_bundle(SAVED / "bundle.pt"), threads=1, engine="fp32")
    model = latency_model.saved_latency_model(session)
    assert model.predict_s([0, 2]) == pytest.approx([0.0001919489484755827, 0.00026691968457509313])
