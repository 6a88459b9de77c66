"""The command line as a person uses it, in this process."""

import io
import sys
from typing import NamedTuple

import pytest

from pi_dynn.cli.main import main


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def pi_dynn(capsys, monkeypatch):
    """Run `pi-dynn` with the given arguments and standard input; one thread, the engine without a choice."""
    monkeypatch.setenv("PI_DYNN_ENGINE", "fp32")

    def run(*arguments, stdin: str | bytes = "") -> Outcome:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), encoding="utf-8"))
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return run
