"""Profiles and latency models: shares, operators, prediction and saved models."""

import json

import pytest
import torch

from pi_dynn import Session
from pi_dynn.clock import PerfClock
from pi_dynn.errors import CalibrationError
from pi_dynn.latency.latency_model import (
    MODELS,
    check_latency_model,
    fit_latency_model,
    save_latency_model,
    saved_latency_model,
)
from pi_dynn.latency.profile import chrome_trace, count_work, measure_roofline, profile, time_steps
from pi_dynn.latency.records import CACHED_BYTES, LatencyModel, Profile, Roofline
from pi_dynn.latency.text import check_table, model_text, profile_notes, profile_table


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return Session(tiny_bundle, threads=1, engine="qnnpack")


@pytest.fixture(scope="module")
def inputs():
    return list(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def timed(session, inputs):
    return time_steps(session, session.timed_network(), inputs, 9, PerfClock(), session.forced_thresholds(2))


@pytest.fixture(scope="module")
def result(session, timed, inputs):
    return profile(session, timed, inputs[0], Roofline(1e10, 2e10, 1e10, 1, "made up"))


def test_every_step_on_the_way_to_the_exit_is_hit(result):
    assert result.exit_counts == [0, 0, 9, 0]
    assert {step.hits for step in result.steps} == {9}
    assert result.steps[-1].kind == "gate" and result.steps[-1].block_index == 8
    assert sum(step.share for step in result.steps) == pytest.approx(1.0)
    assert sum(step.kind == "MLP" for step in result.steps) == 9


def test_steps_take_most_of_an_answer_and_no_more_than_all(result, timed):
    steps_s = sum(step.total_s for step in result.steps)
    assert 0.5 * sum(timed.marked_s) < steps_s <= sum(timed.marked_s)


def test_multiply_adds_are_those_of_the_layers(result):
    tokens, width = 4, 192
    (mlp,) = {step.macs for step in result.steps if step.kind == "MLP"}
    assert mlp == 2 * tokens * width * 4 * width
    patch = result.steps[0]
    assert (patch.kind, patch.macs) == ("patch embedding", tokens * 768 * width)
    assert all(step.int8_macs == step.macs for step in result.steps if step.kind == "MLP")
    assert all(step.moved_bytes >= 2 * width * 4 * width for step in result.steps if step.kind == "MLP")
    (head,) = {step.macs for step in result.steps if step.kind == "head"}
    assert head == width * 5


def test_work_depends_on_the_exit(session, inputs):
    network = session.timed_network()
    shallow = count_work(network, inputs[0][None], session.forced_thresholds(0))
    deep = count_work(network, inputs[0][None], session.forced_thresholds(3))
    assert len(shallow) < len(deep) == len(network.steps)
    assert all(deep[number] == work for number, work in shallow.items())


def test_profile_survives_json(result):
    assert Profile.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_table_and_notes(result):
    text = profile_table(result)
    for name in ("patch embedding", "block 8 MLP", "gate after block 8", "MLP, all", "all steps"):
        assert name in text
    assert "block 9" not in text
    assert profile_table(result, markdown=True).startswith("| step | hits |")
    notes = "\n".join(profile_notes(result))
    assert f"{result.disturbance:.3f}" in notes and "10.0 GMAC/s fp32, 20.0 int8" in notes


def test_trace_has_every_step_of_every_answer(timed):
    events = chrome_trace(timed)["traceEvents"]
    assert len(events) == sum(len(run.times) for run in timed.runs)
    assert events[0]["ts"] == 0.0 and all(event["ph"] == "X" and event["dur"] >= 0 for event in events)
    assert {event["args"]["answer"] for event in events} == set(range(9))


def test_roofline_is_the_slower_of_computing_and_moving():
    roof = Roofline(fp32_macs_per_s=10.0, int8_macs_per_s=40.0, bytes_per_s=100.0, threads=1, source="made up")
    assert roof.least_s(20.0, 40.0, 100.0) == 3.0
    assert roof.least_s(20.0, 40.0, 1000.0) == 10.0


def test_roofline_of_a_known_core_is_its_data_sheet(snapshot_of_core):
    roof = measure_roofline("onednn", 4, snapshot_of_core("Cortex-A72", 1.5e9), PerfClock())
    assert (roof.fp32_macs_per_s, roof.int8_macs_per_s) == (24e9, 48e9) and roof.bytes_per_s > 0
    slow = measure_roofline("qnnpack", 4, snapshot_of_core("Cortex-A76", 2.4e9), PerfClock())
    assert (slow.fp32_macs_per_s, slow.int8_macs_per_s) == pytest.approx((76.8e9, 38.4e9))


def test_roofline_of_another_core_is_measured(snapshot_of_core):
    roof = measure_roofline("qnnpack", 1, snapshot_of_core(None, None), PerfClock())
    assert min(roof.fp32_macs_per_s, roof.int8_macs_per_s, roof.bytes_per_s) > 0 and "timed" in roof.source


@pytest.fixture
def snapshot_of_core():
    from dataclasses import replace

    from pi_dynn.board import take_snapshot

    board = take_snapshot(utilisation_percent=lambda: 0.0)
    return lambda core, frequency_hz: replace(board, core=core, frequency_max_hz=frequency_hz)


def made_up_model(**changes):
    parts = {"start_s": 1.0, "block_s": [2.0] * 12, "check_s": 0.5, "last_s": 0.25}
    names = {"bundle": "b", "engine": "qnnpack", "threads": 1, "torch": "2", "machine": "m"}
    return LatencyModel(**(parts | names | changes))


def test_prediction_adds_blocks_checks_and_the_last_answer():
    assert made_up_model().predict_s([1, 4, 8, 11]) == [5.5, 12.0, 20.5, 26.75]
    assert made_up_model().predict_s([11]) == [25.25]


def test_model_fits_and_predicts_other_answers(session, inputs):
    model = fit_latency_model(session, inputs, 15, PerfClock())
    assert len(model.block_s) == 12 and min(model.block_s) > 0 and model.check_s > 0
    predicted = model.predict_s(session.manifest.blocks)
    assert predicted == sorted(predicted)
    check = check_latency_model(model, session, inputs, 15, PerfClock(), 0.0)
    assert check.exit_counts == [3, 0, 0, 0] and check.predicted_s == pytest.approx(predicted[0])
    assert check.exits[1][2] is None
    assert check.error == pytest.approx(check.predicted_s / check.measured_s - 1)  # the command shows how small it is
    text = check_table(check)
    assert "block 1" in text and "mean" in text and f"{100 * check.error:+.1f} %" in text
    assert "exit check" in model_text(model, session.manifest.blocks)


def test_models_are_kept_per_bundle_engine_and_threads(session):
    MODELS.path.unlink(missing_ok=True)
    with pytest.raises(CalibrationError, match="profile --fit"):
        saved_latency_model(session)
    model = made_up_model(bundle=session.bundle.sha256)
    assert save_latency_model(model) == MODELS.path
    assert saved_latency_model(session) == model
    save_latency_model(made_up_model(bundle=session.bundle.sha256, threads=2))
    assert saved_latency_model(session) == model
    MODELS.path.write_text("damaged")
    with pytest.raises(CalibrationError):
        saved_latency_model(session)
    MODELS.path.unlink()


def test_what_fits_the_caches_is_moved_at_their_speed():
    roof = Roofline(10.0, 40.0, 100.0, 1, "made up", cache_bytes_per_s=400.0)
    assert roof.least_s(0.0, 0.0, 2_000.0) == pytest.approx(5.0)
    large = float(CACHED_BYTES + 1)
    assert roof.least_s(0.0, 0.0, large) == pytest.approx(large / 100.0)
    assert roof.least_s(1_000.0, 0.0, 2_000.0) == pytest.approx(100.0)


def test_operations_do_the_work_of_their_step(session, inputs, result):
    network = session.timed_network(inside=True)
    timed = time_steps(session, network, inputs, 5, PerfClock(), session.forced_thresholds(2))
    opened = profile(session, timed, inputs[0], None)
    for kind in ("patch embedding", "filter", "MLP", "head"):
        whole, parts = (sum(one.macs for one in p.steps if one.kind == kind) for p in (result, opened))
        assert parts == whole > 0
    by_name = {(one.kind, one.operation): one for one in opened.steps if one.block_index == 1}
    assert by_name["MLP", "linear 1"].macs == by_name["MLP", "linear 2"].macs > by_name["MLP", "GELU"].macs == 0
    assert by_name["filter", "forward transform"].macs > by_name["filter", "weight"].macs == 0
    text = profile_table(opened)
    assert "filter: inverse transform" in text and "MLP, all" in text and "head, all" not in text
    assert Profile.from_dict(opened.to_dict()) == opened
