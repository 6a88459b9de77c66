"""Predicted milliseconds: the fit to published timings, its error, and the counts it is given."""

import json
import subprocess
from dataclasses import replace
from math import hypot

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_dynn.board import BoardSnapshot
from pi_dynn.errors import InputError
from pi_dynn.latency import boards, emulated
from pi_dynn.latency.boards import board_model, board_timings, predict_exits, timed_network
from pi_dynn.latency.records import (
    Board,
    BoardBenchmark,
    BoardTimings,
    ExitCounts,
    LatencyRow,
    PredictedLatency,
    TimedNetwork,
)
from pi_dynn.latency.text import board_benchmark_text, board_model_text, predicted_notes, predicted_table

BOARD = Board("desk", "A desk", "cortex-a72", 1e9, ["instructions", "miss_l1"])


def timings_of(times_s: list[float], counts: list[tuple[int, int]]) -> BoardTimings:
    networks = [
        TimedNetwork(f"net{k}", 32, {"desk": time_s}, {"cortex-a72": {"instructions": one, "miss_l1": miss}})
        for k, (time_s, (one, miss)) in enumerate(zip(times_s, counts, strict=True))
    ]
    return BoardTimings("made up", "none", [BOARD], networks)


@given(st.floats(0.1, 5.0), st.floats(1.0, 100.0))
def test_an_exact_model_is_found_and_has_no_error(each, miss):
    counts = [(10**8, 10**6), (3 * 10**8, 10**6), (2 * 10**8, 9 * 10**6), (10**7, 10**5)]
    times_s = [hypot(each * one, miss * line) / BOARD.clock_hz for one, line in counts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boards, "board_timings", lambda: timings_of(times_s, counts))
        model = board_model("desk")
    assert model.cycles == pytest.approx({"instructions": each, "miss_l1": miss}, rel=1e-6)
    assert model.worst_error < 1e-6
    assert model.predict_s({"instructions": 10**9, "miss_l1": 0}) == pytest.approx(each, rel=1e-6)


def test_the_error_is_of_networks_left_out(monkeypatch):
    counts = [(10**8, 0), (2 * 10**8, 10), (3 * 10**8, 0), (10**8, 10**7)]
    timings = timings_of([0.1, 0.2, 0.6, 0.3], counts)  # the third takes twice what the others say
    monkeypatch.setattr(boards, "board_timings", lambda: timings)
    assert board_model("desk").errors["net2"] == pytest.approx(-0.5, abs=0.01)


@pytest.mark.parametrize(("name", "mean", "worst"), [("pi4", 0.10, 0.25), ("pi5", 0.10, 0.25)])
def test_published_boards_are_predicted_as_documented(name, mean, worst):
    model = board_model(name)
    assert len(model.errors) >= 15 and model.mean_error <= mean and model.worst_error <= worst
    assert all(cycles > 0 for cycles in model.cycles.values())
    text = board_model_text(model)
    assert "| mean, worst |" in text and "resnet18" in text


def test_an_unknown_board_names_those_there_are():
    with pytest.raises(InputError, match="'pi3' can be predicted: choose from pi4, pi5"):
        board_model("pi3")


def exit_counts(engine: str, scale: int) -> list[ExitCounts]:
    return [
        ExitCounts(engine, k, block, {"instructions": scale * (k + 1), "miss_l1": 0, "miss_l2": 0, "miss_l3": 0})
        for k, block in enumerate((3, 7, 11))
    ]


def test_the_fastest_engine_is_taken_and_exits_are_weighted():
    counts = [*exit_counts("onednn", 10**7), *exit_counts("qnnpack", 2 * 10**7)]
    one = predict_exits(board_model("pi4"), counts, [2, 0, 1])
    assert one.engine == "onednn" and [row.block_index for row in one.exits] == [3, 7, 11]
    times = [row.latency_s for row in one.exits]
    assert one.mean_s == pytest.approx((2 * times[0] + times[2]) / 3)
    assert PredictedLatency.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    lines = predicted_table([one, predict_exits(board_model("pi5"), counts, [2, 0, 1])]).splitlines()
    assert lines[1].split()[:4] == ["block", "3", "2", "33"] and lines[-1].startswith("mean")
    assert one.net_power_w == pytest.approx(0.6 * 5.1 / 4)  # published logs of a Pi 4: 0.97 to 1.09 W
    assert lines[1].split()[4:8] == ["%,", f"{1e3 * times[0]:.2f}", "ms,", f"{1e3 * times[0] * one.net_power_w:.2f}"]
    assert any("no measurement" in line for line in predicted_notes([one]))
    with pytest.raises(InputError, match="no engine"):
        predict_exits(board_model("pi4"), [], [])


def test_counts_are_kept_per_bundle(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    commands, lines = [], []

    def run(command):
        commands.append([str(part) for part in command])
        return "\n".join(json.dumps(row.to_dict()) for row in exit_counts("qnnpack", 10**6))

    rows = emulated.count_exits(tiny_bundle, "cortex-a72", lines.append, run)
    assert rows == exit_counts("qnnpack", 10**6) and len(lines) == 1
    assert commands[0][1] == "setup" and commands[1][-2:] == ["onednn", "qnnpack"] and "--caches" in commands[1]
    assert emulated.count_exits(tiny_bundle, "cortex-a72", lines.append, run) == rows
    assert len(commands) == 2 and len(lines) == 1
    emulated.count_exits(tiny_bundle, "cortex-a76", lines.append, run)
    assert len(commands) == 4


def test_engines_are_those_a_board_would_try(tiny_bundle):
    def engines(**changed):
        return emulated._engines(replace(tiny_bundle.manifest, **changed))

    assert engines() == ("onednn", "qnnpack") and engines(precision="fp32") == ("fp32",)
    convolutions = {"precision": "int8-static", "self_test": [[0.0] * 5] * 4, "packed_engine": "qnnpack"}
    assert engines(**convolutions) == ("qnnpack",) and engines(format="onnx") == ("onnxruntime",)
    assert engines(format="litert") == ("litert",)


def test_what_fails_on_the_way_is_one_line(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run(command):
        raise subprocess.CalledProcessError(3, command[0])

    with pytest.raises(InputError, match=r"emulated cortex-a72 could not be counted .* docs/arm.md"):
        emulated.count_exits(tiny_bundle, "cortex-a72", run=run)
    monkeypatch.setattr(emulated, "EMULATION", tmp_path / "none.sh")
    with pytest.raises(InputError, match="needs a checkout"):
        emulated.count_exits(tiny_bundle, "cortex-a72")


def test_the_file_holds_what_it_says():
    timings = board_timings()
    assert "ncnn" in timings.source and {board.name for board in timings.boards} == {"pi4", "pi5"}
    for network in timings.networks:
        for board in timings.boards:
            counts = [network.counts[board.core][term] for term in board.terms]
            assert np.all(np.array(counts) > 0)


def board_benchmark(**changes) -> BoardBenchmark:
    board = BoardSnapshot(
        model="Raspberry Pi 4 Model B Rev 1.4",
        machine="aarch64",
        kernel="6.12",
        python="3.13",
        cores=4,
        governor="performance",
        frequency_hz=1.5e9,
        frequency_max_hz=1.5e9,
        temperature_c=50.0,
        throttle_bits=0,
        memory_total_bytes=4 << 30,
        memory_available_bytes=3 << 30,
        load_average=0.1,
        other_load_percent=1.0,
        omp_num_threads=None,
    )
    rows = [
        LatencyRow("slow, full depth", "none taken", 1, 100, 0.072, 0.08, 0.09, (0.07, 0.074), 1.0),
        LatencyRow("fast, full depth", "none taken", 1, 100, 0.060, 0.07, 0.08, (0.05, 0.07), 1.2),
        LatencyRow("fast, full depth", "none taken", 4, 100, 0.020, 0.03, 0.04, (0.01, 0.03), 3.0),
        LatencyRow("fast, with exits", "as they come", 1, 100, 0.010, 0.03, 0.04, (0.01, 0.03), 6.0),
    ]
    board = replace(board, **{name: changes.pop(name) for name in list(changes) if hasattr(board, name)})
    given = {"rows": rows, "after": board, **changes}
    return BoardBenchmark("mine", "0" * 64, 128, ["slow", "fast"], {"torch": "2.9"}, board, **given)


def test_what_somebody_measured_joins_the_published_networks():
    counts = {"cortex-a72": [*exit_counts("onednn", 10**7), *exit_counts("qnnpack", 2 * 10**7)]}
    network = timed_network(board_benchmark(), counts)
    assert network.measured_s == {"pi4": pytest.approx(0.060 * 1.5 / 1.8)}  # at the clock of the published times
    assert network.counts["cortex-a72"]["instructions"] == 3 * 10**7  # the full depth of the cheaper engine
    assert "of use for predictions" in board_benchmark_text(board_benchmark())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "Raspberry Pi 3 Model B"}, "predictions are for Raspberry Pi 4 and Raspberry Pi 5"),
        ({"governor": "ondemand"}, "the governor is ondemand"),
        ({"frequency_max_hz": None}, "the highest clock is unknown"),
        ({"throttle_bits": 4}, "throttled throughout"),
        ({"rows": board_benchmark().rows[2:]}, "no full depth on one thread"),
    ],
)
def test_what_was_measured_badly_is_not_taken(changes, reason):
    benchmark = board_benchmark(**changes)
    with pytest.raises(InputError, match=f"mine on Raspberry Pi .* is of no use for predictions: .*{reason}"):
        timed_network(benchmark, {})
    assert reason in board_benchmark_text(benchmark)
