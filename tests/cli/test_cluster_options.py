"""`--cluster` and `--ship`, with a scheduler and workers started as a person would."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler with one worker, and the scheduler's process."""
    pytest.importorskip("distributed", reason="needs the extra [cluster]")
    folder = tmp_path_factory.mktemp("dask")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    common = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"], **common
    )
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"], **common
    )
    yield address, server
    for process in (worker, server):
        process.terminate()
        process.wait(20)


def test_usage(pi_dynn, tmp_path):
    assert pi_dynn("classify", "--ship").status == 2
    outcome = pi_dynn("evaluate", tmp_path, "--cluster", "tcp://127.0.0.1:1", "--corrupt", "noise")
    assert outcome.status == 2 and "--corrupt works on this machine only" in outcome.err


def test_without_dask_the_cure_is_named(pi_dynn, monkeypatch, tiny_bundle_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for name in ("pi_dynn.classify.cluster", "pi_dynn.classify.cluster_worker"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    outcome = pi_dynn("classify", "--cluster", "tcp://127.0.0.1:1", "--bundle", tiny_bundle_path)
    assert outcome.status == 1 and "[cluster]'" in outcome.err
    assert outcome.err.count("\n") == 1


def without_times(line: str) -> dict:
    return {name: value for name, value in json.loads(line).items() if name not in ("latency_s", "summary")}


def test_classify_says_what_it_says_without(pi_dynn, scheduler, tiny_bundle_path, photographs):
    arguments = "classify", photographs, "--json", "--bundle", tiny_bundle_path, "--engine", "fp32", "--threads", 1
    here, there = pi_dynn(*arguments), pi_dynn(*arguments, "--cluster", scheduler[0], "--ship")
    assert there.status == 0 and there.err == ""
    assert [*map(without_times, there.out.splitlines())] == [*map(without_times, here.out.splitlines())]


def test_evaluate_says_what_it_says_without(pi_dynn, scheduler, tiny_bundle_path, photographs, tmp_path):
    for i, path in enumerate(sorted(photographs.iterdir())):
        folder = tmp_path / "abc"[i % 3]
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    arguments = "evaluate", tmp_path, "--json", "--bundle", tiny_bundle_path, "--engine", "fp32", "--threads", 1
    assert json.loads(pi_dynn(*arguments, "--cluster", scheduler[0]).out) == json.loads(pi_dynn(*arguments).out)


def test_a_lost_scheduler_is_one_line(scheduler, tiny_bundle_path, photographs):
    """Must be the last test here: the scheduler is gone afterwards."""
    address, server = scheduler
    command = [sys.executable, "-m", "pi_dynn.cli", "classify", "-", "--json", "--bundle", str(tiny_bundle_path)]
    run = subprocess.Popen(
        [*command, "--cluster", address, "--engine", "fp32"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"},  # else it asks for half a minute
    )
    name = str(next(photographs.iterdir()))
    for _ in range(64):  # more than may be in flight, so that an answer is seen
        run.stdin.write(name + "\n")
    run.stdin.flush()
    assert json.loads(run.stdout.readline())["path"] == name
    server.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    _, err = run.communicate((name + "\n") * 64, timeout=60)
    assert run.returncode == 1
    assert err.startswith(f"pi-dynn: error: the scheduler at {address} is lost") and err.count("\n") == 1
