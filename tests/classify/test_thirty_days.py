"""Six hours of the benchmark of thirty days, with all that goes wrong in a day."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
FAULTS = ("unplug", "hang", "broker_dies", "hub_dies", "disk_fills", "calendar_is_set", "bundle_changes", "dies")


@pytest.fixture
def benchmark_module(monkeypatch):
    pytest.importorskip("paho.mqtt.client")
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("thirty_days", FOLDER / "thirty_days.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DAY_S", 6 * 3600)
    return module


def test_a_day_with_all_that_goes_wrong(benchmark_module, tmp_path):
    world = benchmark_module.simulate(1, 5, tmp_path)
    counts = world.counts
    assert all(counts[fault] >= 1 for fault in FAULTS)
    assert all(
        counts[what] >= 1 for what in ("failed", "dropped", "reconnects", "restarts", "unsure_saved", "unsure_lost")
    )
    assert counts["swaps"] + counts["refused_swaps"] >= 1 and counts["unpublished"] >= 1
    assert counts["uncounted"] == counts["unknown"] == 0
    assert counts["frames"] > 10_000 and counts["skipped"] / counts["frames"] > 0.85
    assert 0 < benchmark_module.silence_s(world) <= benchmark_module.LONGEST_SILENCE_S
    assert world.longest_beat_s <= benchmark_module.WATCHDOG_S


def test_a_silence_is_found(benchmark_module, tmp_path, monkeypatch):
    """The check itself: a watch that answers too rarely is silent for too long."""
    monkeypatch.setattr(benchmark_module, "DAY_S", 3600)
    monkeypatch.setattr(benchmark_module, "AT_LEAST_S", 300.0)
    world = benchmark_module.simulate(1, 5, tmp_path)
    assert benchmark_module.silence_s(world) > benchmark_module.LONGEST_SILENCE_S
