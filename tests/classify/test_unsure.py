"""Saving of unsure pictures: whole, within the quota, and never the end of a watch."""

import errno
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from pi_dynn.classify import unsure
from pi_dynn.classify.unsure import UnsurePictures
from pi_dynn.data.frames import Frame
from pi_dynn.errors import InputError
from pi_dynn.records import Prediction

NOW = datetime(2027, 1, 31, 12, 0, 0, tzinfo=timezone.utc)
PICTURE = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)


def answer(probability: float, accepted: bool = True, label: str = "a bee/wasp") -> Prediction:
    return Prediction(label, 0, probability, 0, 1, 0.9, 0.01, [(label, probability)], accepted)


def frame(second: float, image=PICTURE) -> Frame:
    return Frame("camera", round(second), image, round(second * 1e9))


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_unsure_pictures_alone_are_saved(tmp_path):
    pictures = UnsurePictures(tmp_path / "new" / "folder", 10**6, lambda: NOW, below=0.5)
    pictures.offer(frame(0), answer(0.9))
    pictures.offer(frame(10), answer(0.4))
    pictures.offer(frame(20), answer(0.9, accepted=False))
    pictures.offer(frame(30, InputError("damaged")), answer(0.1))
    assert names(tmp_path / "new" / "folder") == [
        "20270131T120000_10_a_bee_wasp_40.jpg",
        "20270131T120000_20_none_of_these_90.jpg",
    ]
    assert (pictures.saved, pictures.lost) == (2, 0)
    with Image.open(tmp_path / "new" / "folder" / "20270131T120000_10_a_bee_wasp_40.jpg") as saved:
        assert saved.size == (80, 60)


def test_a_scene_that_stays_unsure_is_saved_now_and_then(tmp_path):
    pictures = UnsurePictures(tmp_path, 10**6, lambda: NOW)
    for i in range(60):
        pictures.offer(frame(i), answer(0.1))
    assert pictures.saved == 60 / unsure.PAUSE_S


def test_a_file_is_copied_as_it_is(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.PNG")
    pictures = UnsurePictures(tmp_path / "unsure", 10**6, lambda: NOW)
    pictures.offer(frame(1, tmp_path / "a.PNG"), answer(0.2))
    (copy,) = (tmp_path / "unsure").iterdir()
    assert copy.suffix == ".PNG" and copy.read_bytes() == (tmp_path / "a.PNG").read_bytes()


def test_the_quota_holds_and_nothing_is_deleted(tmp_path):
    said: list[str] = []
    (tmp_path / "mine.txt").write_bytes(b"x" * 5000)
    pictures = UnsurePictures(tmp_path, 30_000, lambda: NOW, say=said.append)
    for i in range(20):
        pictures.offer(frame(10 * i), answer(0.1))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 30_000
    assert pictures.saved >= 1 and pictures.saved + pictures.lost == 20
    assert len(said) == 1 and "quota of 0.03 MB" in said[0]
    assert "mine.txt" in names(tmp_path)
    (tmp_path / "mine.txt").unlink()
    (tmp_path / names(tmp_path)[0]).unlink()
    saved = pictures.saved
    pictures.offer(frame(1000), answer(0.1))
    assert pictures.saved == saved + 1  # there is room again


def test_a_full_disk_is_said_once_and_leaves_nothing_behind(tmp_path, monkeypatch):
    said: list[str] = []
    pictures = UnsurePictures(tmp_path, 10**6, lambda: NOW, say=said.append)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        for i in range(3):
            pictures.offer(frame(10 * i), answer(0.1))
    assert names(tmp_path) == [] and (pictures.saved, pictures.lost) == (0, 3)
    pictures.offer(frame(30), answer(0.1))
    assert pictures.saved == 1 and len(said) == 1 and "No space left on device" in said[0]


def test_a_calendar_that_is_set_back_replaces_nothing(tmp_path):
    pictures = UnsurePictures(tmp_path, 10**6, lambda: NOW)
    pictures.offer(frame(0), answer(0.1))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = UnsurePictures(tmp_path, 10**6, lambda: NOW)
    again.offer(frame(0, 255 - PICTURE), answer(0.1))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before and again.lost == 1


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made|choose another"):
        UnsurePictures(tmp_path / "file" / "folder", 10**6, lambda: NOW)
