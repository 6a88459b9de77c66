"""Measured costs from energy runs and benchmarks."""

import json
from dataclasses import replace

import pytest

from pi_dynn.energy.results import energy_results
from pi_dynn.energy.runs import save_run
from pi_dynn.errors import CalibrationError
from pi_dynn.evaluate.thresholds import read_exit_costs
from pi_dynn.latency.records import LatencyRow
from tests.energy.simulated import QUICK, Bench

BUNDLE = "0123abcd" * 8
BLOCKS = [1, 4, 11]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.json"
    measurement = Bench().measure(replace(QUICK, each_exit=True))
    save_run(path, measurement, energy_results(*measurement))
    return path


def row(name: str, median_s: float, block_index: int | None = None) -> str:
    interval = (median_s, median_s)
    fields = LatencyRow(name, "", 1, 9, median_s, median_s, median_s, interval, 1.0, block_index=block_index).to_dict()
    if block_index is None:
        del fields["block_index"]  # as release 0.1 wrote it
    return json.dumps(fields)


def test_a_saved_run_gives_joules_and_seconds(run):
    # 1.02 W above idle for 10, 20 and 40 ms
    joules, seconds = (read_exit_costs(run, unit, BLOCKS, BUNDLE) for unit in ("J", "s"))
    assert joules.values == pytest.approx([0.0102, 0.0204, 0.0408], rel=0.05)
    assert joules.source == "energy run, SIMULATED"
    assert seconds.values == pytest.approx([0.010, 0.020, 0.040], rel=0.05)


def test_energies_of_an_invalid_run_are_no_costs(tmp_path):
    bench = Bench()
    bench.board.live = lambda: 0x4 if "trial 3" in bench.stages[-1] else 0x0
    measurement = bench.measure(replace(QUICK, each_exit=True))
    save_run(tmp_path / "run.json", measurement, energy_results(*measurement))
    with pytest.raises(CalibrationError, match="its energies are invalid .*throttled"):
        read_exit_costs(tmp_path / "run.json", "J", BLOCKS, BUNDLE)


def test_a_run_of_another_bundle_or_with_other_exits(run):
    with pytest.raises(CalibrationError, match="a run of another bundle than ffff"):
        read_exit_costs(run, "J", BLOCKS, "f" * 64)
    with pytest.raises(CalibrationError, match="has no energy of the exit after block 2"):
        read_exit_costs(run, "J", [1, 2, 11], BUNDLE)


def test_a_benchmark_gives_seconds_by_its_block_indices(tmp_path):
    path = tmp_path / "benchmark.jsonl"
    lines = [
        row("of any name", 0.040, 11),
        row("block 9", 0.0100, 1),
        row("block 1", 0.0101, 4),
        row("of another engine", 7.0, 11),
        row("eager, full depth", 9.0),
    ]
    path.write_text("\n".join(lines))
    assert read_exit_costs(path, "s", BLOCKS, BUNDLE) == ([0.0100, 0.0101, 0.040], "benchmark")
    with pytest.raises(CalibrationError, match="has no latency of the exit after block 8"):
        read_exit_costs(path, "s", [1, 4, 8, 11], BUNDLE)


def test_a_benchmark_of_release_0_1_gives_seconds_by_the_names_of_its_rows(tmp_path):
    path = tmp_path / "benchmark.jsonl"
    lines = [
        row("int8 x86, full depth", 0.040),
        row("int8 x86, block 2", 0.0101),
        row("int8 x86, block 5", 0.0100),
        row("int8 x86, with exits", 0.02),
        json.dumps({"cold_start": {}}),
    ]
    path.write_text("\n".join(lines))
    # Noise has put the first two in the wrong order.
    assert read_exit_costs(path, "s", BLOCKS, BUNDLE).values == [0.0101, 0.0101, 0.040]
    with pytest.raises(CalibrationError, match="has no latency of the exit after block 8"):
        read_exit_costs(path, "s", [1, 4, 8, 11], BUNDLE)
    with pytest.raises(CalibrationError, match="no saved energy run"):
        read_exit_costs(path, "J", BLOCKS, BUNDLE)


@pytest.mark.parametrize("text", ["not json", "[1]", "{}"])
def test_other_files(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CalibrationError, match="x.json"):
        read_exit_costs(tmp_path / "x.json", "s", BLOCKS, BUNDLE)
    with pytest.raises(CalibrationError, match="none.json"):
        read_exit_costs(tmp_path / "none.json", "s", BLOCKS, BUNDLE)
