"""A folder as a source of frames: what is written, renamed or moved into it, and what is not."""

import os
import shutil

import pytest

from pi_dynn.clock import PerfClock
from pi_dynn.data.watch_sources import open_feed
from pi_dynn.errors import InputError

LONG_S = 20.0  # only a test that fails waits for so long
CLOCK = PerfClock()


@pytest.fixture(autouse=True)
def watchdog():
    pytest.importorskip("watchdog")


def test_a_half_written_file_is_waited_for(tmp_path, photographs):
    content = (photographs / "photograph0.jpg").read_bytes()
    with open_feed(str(tmp_path), CLOCK) as feed, (tmp_path / "slow.jpg").open("wb") as stream:
        stream.write(content[:1000])
        stream.flush()
        assert feed.take(0.3) is None
        stream.write(content[1000:])
        stream.close()
        assert feed.take(LONG_S).image.read_bytes() == content


def test_what_is_renamed_or_moved_in_counts(tmp_path, photographs):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copytree(photographs, elsewhere)
    with open_feed(str(folder), CLOCK) as feed:
        (elsewhere / "photograph0.jpg").rename(folder / "moved.jpg")
        assert feed.take(LONG_S).name == str(folder / "moved.jpg")
        shutil.copy(elsewhere / "photograph1.jpg", folder / "part.tmp")
        assert feed.take(0.2) is None
        (folder / "part.tmp").rename(folder / "whole.JPG")
        assert feed.take(LONG_S).image == folder / "whole.JPG"


def test_hidden_files_others_and_leavers_are_left_alone(tmp_path, photographs):
    folder = tmp_path / "folder"
    folder.mkdir()
    with open_feed(str(folder), CLOCK) as feed:
        for name in (".hidden.jpg", "notes.txt"):
            shutil.copy(photographs / "photograph0.jpg", folder / name)
        (folder / "notes.txt").rename(tmp_path / "gone.jpg")
        assert feed.take(0.8) is None and feed.seen == 0


def test_folders_within_and_names_out_of_the_ordinary(tmp_path, photographs):
    (tmp_path / "within").mkdir()
    with open_feed(str(tmp_path), CLOCK) as feed:
        for name in ("within/ä ö.jpg", os.fsdecode(b"within/\xff.jpg")):
            shutil.copy(photographs / "photograph0.jpg", tmp_path / name)
            assert feed.take(LONG_S).image == tmp_path / name


def test_a_folder_that_is_gone_ends_it(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with open_feed(str(folder), CLOCK) as feed:
        folder.rmdir()
        with pytest.raises(InputError, match="the folder is gone"):
            feed.take(LONG_S)


def test_a_folder_that_is_there_is_not_lost(tmp_path):
    with open_feed(str(tmp_path), CLOCK) as feed:
        assert feed.lost_s == 0.0
