"""Progress bars: lines that are printed meanwhile stand above them."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout

import click

from pi_dynn.cli.options import SessionChoice, _say_timing
from pi_dynn.cli.printing import is_piped
from pi_dynn.cli.progress import progress


class Terminal(io.TextIOWrapper):
    """A terminal that keeps what is written."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8")

    def isatty(self):
        return True


def test_lines_are_printed_above_the_bar_and_not_wrapped(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal, name = Terminal(), "x" * 100 + ".jpg"
    with redirect_stdout(terminal), redirect_stderr(terminal), progress("classify", 2) as advance:
        click.echo(name)
        advance()
        click.echo(click.style("dim", dim=True))
        click.echo("pi-dynn: error: no such file", err=True)
    terminal.flush()
    shown = terminal.buffer.getvalue().decode()
    for line in (name, "\x1b[2mdim\x1b[0m", "pi-dynn: error: no such file"):
        assert f"\r\x1b[2K{line}\n" in shown  # the bar's line is cleared first


def test_without_a_terminal_there_is_no_bar(capsys):
    with progress("classify", 2) as advance:
        click.echo("answer")
        advance()
    assert capsys.readouterr() == ("answer\n", "")


def test_a_pipe_is_told_from_a_file(tmp_path):
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as pipe, redirect_stdout(pipe):
        assert is_piped()
    with (tmp_path / "file").open("w") as file, redirect_stdout(file):
        assert not is_piped()
    with redirect_stdout(io.StringIO()):
        assert not is_piped()


def test_who_waits_for_the_first_answer_is_told_why(tiny_bundle_path, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _say_timing.cache_clear()
    choice, note = SessionChoice(tiny_bundle_path, "auto", None, None), "Note: timing the engines and threads"
    shown = []
    for _ in range(2):
        terminal = Terminal()
        with redirect_stderr(terminal):
            choice.open()
        terminal.flush()
        shown.append(terminal.buffer.getvalue().decode())
    assert shown[0].count(note) == 1 and shown[1] == ""
