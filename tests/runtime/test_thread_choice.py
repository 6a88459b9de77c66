"""One thread or all: the faster number is chosen and cached."""

from types import SimpleNamespace

import pytest
import torch

from pi_dynn import Session
from pi_dynn.clock import FakeClock
from pi_dynn.runtime import thread_choice
from pi_dynn.runtime.machine_cache import CHOICES
from pi_dynn.runtime.thread_choice import fastest_threads, most_threads


@pytest.fixture(autouse=True)
def four_cores(monkeypatch, tmp_path):
    before = torch.get_num_threads()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(thread_choice, "usable_cores", lambda: 4)
    yield
    torch.set_num_threads(before)


torch_threads = SimpleNamespace(set_threads=torch.set_num_threads)


def answers(clock: FakeClock, duration_s: dict[int, float]):
    """An answer that takes as long as the number of threads says."""
    return lambda: clock.advance(duration_s[torch.get_num_threads()])


@pytest.mark.parametrize(("duration_s", "best"), [({1: 0.02, 4: 0.01}, 4), ({1: 0.01, 4: 0.02}, 1)])
def test_the_faster_one_is_chosen_and_cached(duration_s, best):
    clock = FakeClock()
    assert (
        fastest_threads(torch_threads, answers(clock, duration_s), "bundle", "fp32", clock)
        == best
        == torch.get_num_threads()
    )

    def not_again():
        raise AssertionError("the remembered number should have been used")

    assert fastest_threads(torch_threads, not_again, "bundle", "fp32", clock) == best
    with pytest.raises(AssertionError):
        fastest_threads(torch_threads, not_again, "bundle", "qnnpack", clock)


@pytest.mark.parametrize(("allowed", "most"), [("1", 1), ("3,2", 3), ("9", 4), ("0", 1), ("all", 4)])
def test_no_more_threads_than_the_environment_allows(monkeypatch, tiny_bundle, allowed, most):
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert most_threads() == most
    assert Session(tiny_bundle).threads <= most


@pytest.mark.parametrize("content", ["", "[]", '{"x": "y"}', '{"x": null}'])
def test_a_damaged_cache_is_ignored(content):
    CHOICES.path.parent.mkdir(parents=True)
    CHOICES.path.write_text(content)
    clock = FakeClock()
    assert fastest_threads(torch_threads, answers(clock, {1: 0.02, 4: 0.01}), "bundle", "fp32", clock) == 4


def test_a_given_number_is_used(tiny_bundle, monkeypatch):
    monkeypatch.setenv("PI_DYNN_ENGINE", "fp32")
    assert Session(tiny_bundle, threads=3).threads == 3
    assert not CHOICES.path.exists()
    assert Session(tiny_bundle).threads in (1, 4)
    assert CHOICES.path.exists()


def test_an_onnx_network_is_timed_with_both(tiny_bundle):
    pytest.importorskip("onnxruntime")
    from pi_dynn.deploy.onnx import onnx_bundle

    converted = onnx_bundle(tiny_bundle)
    session = Session(converted)
    assert session.threads in (1, 4) and {1, 4} <= set(session._network._opened)
    again = Session(converted)
    assert again.threads == session.threads and list(again._network._opened) == [session.threads]
