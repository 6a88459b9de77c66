"""Images a second, and the largest batch that fits."""

import json
import subprocess
import sys

import pytest
import torch

from pi_dynn import Session
from pi_dynn.clock import PerfClock
from pi_dynn.latency import throughput
from pi_dynn.latency.text import throughput_table
from pi_dynn.latency.throughput import largest_batch, session_throughput
from tests.cli import conftest

pi_dynn = conftest.pi_dynn  # which pytest shows to the tests beside it only
MEGABYTE = 2**20


def test_memory_of_a_batch_is_what_it_needs_at_most():
    """In a young process: from an old one the system takes idle pages meanwhile, which hides what is added."""
    program = f"""
import numpy as np
from pi_dynn.latency.throughput import memory_of
print(memory_of(lambda: None), memory_of(lambda: np.ones(200 * {MEGABYTE}, dtype=np.uint8)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    none, some = map(int, result.stdout.split())
    assert none < 30 * MEGABYTE and 150 * MEGABYTE < some < 400 * MEGABYTE


def test_no_batch_is_tried_that_would_not_fit():
    """In a young process, too: one that has trained uses memory again that it has freed."""
    # Half of it takes 10 of 48 MB: far from both 8 and 16, as Linux counts pages roughly.
    program = f"""
import numpy as np
from pi_dynn.latency.throughput import largest_batch

tried = []

def run(size):
    tried.append(size)
    np.ones(size * 48 * {MEGABYTE}, dtype=np.uint8)

print(largest_batch(run, free_bytes=lambda: 1024 * {MEGABYTE}), max(tried))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["8", "8"]
    assert largest_batch(lambda size: None, most=16) == 16


def test_on_a_gpu_the_batch_is_found_by_trying():
    def run(size: int) -> None:
        if size > 32:
            raise torch.OutOfMemoryError("out of memory")

    assert largest_batch(run, on_gpu=True) == 32


def test_throughput_of_a_session(tiny_bundle):
    session = Session(tiny_bundle, threads=1, engine="fp32")
    result = session_throughput(session, PerfClock(), 4, 0.01)
    assert (result.batch_size, result.threads) == (4, 1)
    assert result.images_per_s == pytest.approx(4 * result.batches / result.timed_s)
    assert throughput_table([result]).splitlines()[1].startswith("int8 fp32, full depth")


def test_command(pi_dynn, tiny_bundle_path, monkeypatch):
    monkeypatch.setattr(throughput, "MOST_IMAGES", 4)
    command = ("benchmark", "--throughput", "--seconds", 0.01, "--bundle", tiny_bundle_path)
    result = json.loads(pi_dynn(*command, "--json").out)
    assert (result["kind"], result["batch_size"]) == ("throughput", 4)
    assert "fp32 cpu, full depth, network alone" in pi_dynn(*command, "--device", "cpu").out
    outcome = pi_dynn(*command, "--device", "nowhere")
    assert outcome.status == 1 and "device 'nowhere' is not there" in outcome.err
    assert "give it with them" in pi_dynn("benchmark", "--batch-size", 4).err
