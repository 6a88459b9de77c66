import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pi_dynn.files import replacing, write_text


@pytest.fixture(params=["without a name", "with a name"])
def temporary(request, monkeypatch):
    """The two kinds of temporary file: some file systems cannot keep a file that has no name."""
    if request.param == "with a name":
        monkeypatch.delattr(os, "O_TMPFILE")


@pytest.mark.usefixtures("temporary")
def test_what_is_written_replaces_what_stood_there(tmp_path):
    path = tmp_path / "below" / "answers.csv"
    write_text(path, "first")
    write_text(path, "second")
    assert path.read_text() == "second" and list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_nothing_stays_of_a_process_that_was_killed(tmp_path):
    body = (
        "import os, signal, sys; from pi_dynn.files import replacing\n"
        "with replacing(sys.argv[1]) as stream:\n"
        "    stream.write(b'half'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "answers.csv"
    write_text(path, "first")
    ended = subprocess.run([sys.executable, "-c", body, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("temporary")
def test_a_failure_names_the_file_and_keeps_what_stood_there(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "answers.csv"
    write_text(path, "first")
    with monkeypatch.context() as patch:
        patch.setattr("pi_dynn.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left on device") as raised:
            write_text(path, "second")
    assert raised.value.filename == str(path)
    with pytest.raises(FileExistsError) as raised:
        write_text(path / "below.csv", "third")
    assert raised.value.filename == str(path)
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("temporary")
def test_a_failure_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, replacing(tmp_path / "copy"):
        (tmp_path / "missing").open()
    assert raised.value.filename == str(tmp_path / "missing") and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("temporary")
def test_a_place_that_cannot_be_written_is_named_not_its_temporary_file(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), ".answers.csv.x1")

    monkeypatch.setattr("pi_dynn.files.os.open", refused)
    with pytest.raises(PermissionError) as raised:
        write_text(tmp_path / "answers.csv", "")
    assert raised.value.filename == str(tmp_path / "answers.csv")


@pytest.mark.usefixtures("temporary")
def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def watched(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr("pi_dynn.files.os.fsync", watched)
    write_text(tmp_path / "answers.csv", "first")
    assert synced[-1] == tmp_path and len(synced) == 2
