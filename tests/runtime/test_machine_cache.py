"""The cache of a machine: per key, torch and machine, in the user's cache folder."""

import pytest
import torch

from pi_dynn.errors import PiDynnError
from pi_dynn.runtime.engine_choice import _cached_choice
from pi_dynn.runtime.machine_cache import CHOICES, MachineCache


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return MachineCache("x.json")


def test_values_are_found_by_their_keys(cache, tmp_path, monkeypatch):
    assert cache.path == tmp_path / "pi_dynn" / "x.json" and cache.get("a", 1) is None
    cache.keep([1, "b"], "a", 1)
    cache.keep({"c": 2}, "a", 2)
    assert (cache.get("a", 1), cache.get("a", 2), cache.get("a")) == ([1, "b"], {"c": 2}, None)
    monkeypatch.setattr("platform.node", lambda: "another")
    assert cache.get("a", 1) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_damaged_file_is_an_empty_one(cache, content):
    cache.path.parent.mkdir()
    cache.path.write_bytes(content)
    assert cache.get("a") is None
    cache.keep(1, "a")
    assert cache.get("a") == 1


def test_a_folder_that_cannot_be_written_is_an_error(cache, tmp_path):
    (tmp_path / "pi_dynn").write_text("a file where the folder should be")
    with pytest.raises((OSError, PiDynnError)):
        cache.keep(1, "a")


@pytest.mark.parametrize("value", [None, "onednn", ["tpu", True], ["onednn"], ["onednn", "yes"], [1, True]])
def test_a_choice_that_is_none_is_made_again(tiny_bundle, value, cache):
    CHOICES.keep(value, "engine", tiny_bundle.sha256, torch.get_num_threads())
    assert _cached_choice(tiny_bundle) is None
