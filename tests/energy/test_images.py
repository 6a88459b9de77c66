"""The images of an energy run."""

import shutil
from types import SimpleNamespace

import pytest

from pi_dynn import Session
from pi_dynn.energy import measure
from pi_dynn.energy.measure import load_candidate
from pi_dynn.errors import DatasetError


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return Session(tiny_bundle, engine="fp32")


@pytest.fixture
def labelled(photographs, tmp_path):
    """Three photographs each in folders named after the classes a and b."""
    for index, path in enumerate(sorted(photographs.iterdir())):
        folder = tmp_path / "ab"[index % 2]
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return tmp_path


def test_labels_are_those_of_the_folders(session, labelled):
    candidate = load_candidate(session, labelled, None)
    assert sorted(candidate.labels) == [0, 0, 0, 1, 1, 1]
    assert len(candidate.inputs) == 6
    assert candidate.thresholds == [0.5] * 3
    assert candidate.name == "gfnet_12_192 int8"


def test_labels_are_unknown_where_one_folder_is_no_class(session, labelled):
    (labelled / "b").rename(labelled / "elsewhere")
    assert load_candidate(session, labelled, None).labels is None


def test_of_more_images_than_asked_for_a_part_is_drawn_the_same_every_time(session, labelled):
    first, again = (load_candidate(session, labelled, 4) for _ in range(2))
    assert len(first.inputs) == 4
    assert all(bool((x == y).all()) for x, y in zip(first.inputs, again.inputs, strict=True))


def test_no_more_images_than_the_memory_holds(session, labelled, monkeypatch):
    size = session.preprocess.size
    free = SimpleNamespace(available=4 * 2 * 3 * size * size * 4)  # a quarter of it holds two
    monkeypatch.setattr(measure.psutil, "virtual_memory", lambda: free)
    assert len(load_candidate(session, labelled, None).inputs) == 2


def test_a_folder_without_images_is_refused(session, tmp_path):
    with pytest.raises(DatasetError, match="no images"):
        load_candidate(session, tmp_path, None)
    with pytest.raises(DatasetError, match="no such folder"):
        load_candidate(session, tmp_path / "none", None)
