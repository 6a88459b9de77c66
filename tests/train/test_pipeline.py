"""The three stages end to end on real photographs; killed runs and several processes end as they should."""

import csv
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pi_dynn import load_bundle
from pi_dynn.models.card import read_card
from tests.train.scenes import tiles_of_samples

PROGRAM = Path(__file__).with_name("pipeline.py")
WEIGHTS = ("teacher/best", "teacher/last", "student/best", "student/last", "exits/exits")


def start(how: str, data: Path, out: Path, **environment: str) -> subprocess.Popen:
    """The program as a process of one thread: how many there are changes the order of sums."""
    return subprocess.Popen(
        [sys.executable, PROGRAM, how, data, out],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[2])}
        | {"PI_DYNN_ENGINE": "fp32"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return tiles_of_samples(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def runs(scenes, tmp_path_factory) -> tuple[Path, str]:
    """The folder with what the undisturbed and the killed stages left, and what they said."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, finish(start("stages", scenes, folder))


def test_killed_and_resumed_stages_end_with_the_weights_of_undisturbed_ones(runs):
    folder, said = runs
    straight, killed = folder / "straight", folder / "killed"
    done = [int(count) for count in re.findall(r"killed with (\d+) epochs done", said)]
    assert len(done) == 3 and all(0 < epochs < 4 for epochs in done)
    for name in WEIGHTS:
        files = [folder / f"{name}.safetensors" for folder in (straight, killed)]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    assert load_bundle(straight / "exits/bundle.pt").sha256 == load_bundle(killed / "exits/bundle.pt").sha256


def test_every_stage_leaves_what_the_next_one_and_a_person_need(runs):
    folder, said = runs
    out = folder / "straight"
    for stage, epochs in (("teacher", 4), ("student", 4), ("exits/bilevel", 4), ("exits/warmup", 3)):
        rows = list(csv.DictReader((out / stage / "log.csv").read_text().splitlines()))
        assert [int(row["epoch"]) for row in rows] == list(range(1, epochs + 1))
        assert all(0 <= float(row["waited"]) < 1 for row in rows)
    manifest = load_bundle(out / "exits/bundle.pt").manifest
    stages = manifest.notes["stages"]
    assert [stage["stage"] for stage in stages] == ["distill", "exits"]
    assert stages[0]["options"]["teacher"] == "best.safetensors" and len(stages[0]["options"]["teacher_sha256"]) == 64
    assert {"files_sha256", "split_sha256"} <= set(stages[1]["data"]) and "torch" in stages[1]["versions"]
    assert stages[0]["data"] == stages[1]["data"]
    assert manifest.labels == read_card(out / "student/best.safetensors").classes
    assert "acc@1" in said and said.count("on the calibrate part") == 6
    result = json.loads((out / "exits/result.json").read_text())
    assert set(result["depth_accuracies"]) == {"0", "1", "2", "3"}
    assert manifest.exit_blocks == result["exit_blocks"] and len(result["exit_blocks"]) <= 4


def test_the_student_is_left_as_it_was_by_the_exits(runs):
    out = runs[0] / "straight"
    student, whole = (load_file(out / f"{name}.safetensors") for name in ("student/best", "exits/exits"))
    assert all(whole[key].equal(value) for key, value in student.items())
    assert any(key.startswith("gates.2") for key in whole)


def test_two_processes_learn_as_one(runs, scenes, tmp_path):
    """The same batches, the same augmentation, gradients averaged: the loss curves are one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": "2"}
    both = [
        start("transfer", scenes, tmp_path / "two", **environment, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]
    said = [finish(process) for process in both]
    assert said[0].count("calibrate part") == 1 and not said[1]  # only the first process speaks
    curves = [
        [float(row["loss"]) for row in csv.DictReader((folder / "teacher/log.csv").read_text().splitlines())]
        for folder in (runs[0] / "straight", tmp_path / "two")
    ]
    assert len(curves[0]) == 4 and curves[0][-1] < curves[0][0]
    assert curves[1] == pytest.approx(curves[0], abs=1e-3)
