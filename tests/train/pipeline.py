"""Runs stages of training as a person would, and kills them in between: a program for test_pipeline.py.

    python pipeline.py stages DATA OUT      the three stages, undisturbed, then again killed and resumed
    python pipeline.py transfer DATA OUT    the first of them, by as many processes as the environment says

In one process, so that torch is imported once; every attempt is a fork of it.
"""

import os
import signal
import sys
import time
from pathlib import Path

import pi_dynn.train.run_exits  # noqa: F401 - so that the forks need not
from pi_dynn.cli.main import main
from pi_dynn.models.gfnet import GFNet, GFNetSize
from pi_dynn.models.registry import register_model

TINY = GFNetSize(dim=16, depth=4)
COMMON = ["--batch-size", "8", "--seed", "3", "--workers", "0", "--device", "cpu"]


def stages(data: str, out: Path) -> list[tuple[list[str], Path]]:
    """Arguments of the three stages, and for each the log that shows the end of an epoch."""
    images = ["--data", data, *COMMON, "--split", str(out / "split.json")]
    options = ["--image-size", "32", "--augment", "aerial", "--warmup-epochs", "1", "--epochs", "4"]
    teacher, student, exits = out / "teacher", out / "student", out / "exits"
    return [
        (["transfer", "--model", "tiny", *images, *options, "--mix", "0", "--out", str(teacher)], teacher / "log.csv"),
        (
            ["distill", "--teacher", str(teacher / "best.safetensors"), "--student", "tiny", "--loss", "soft"]
            + [*images, *options, "--ema", "0.9", "--out", str(student)],
            student / "log.csv",
        ),
        (
            ["exits", "--init", str(student / "best.safetensors"), *images, "--epochs", "4", "--turn", "2"]
            + ["--head-patience", "9", "--head-epochs", "3", "--tolerated-loss", "0.2", "--out", str(exits)],
            exits / "bilevel" / "log.csv",
        ),
    ]


def attempt(arguments: list[str], kill_at: Path | None) -> int:
    """Run `pi-dynn train` in a fork; with `kill_at`, kill it as soon as that file is there. The signal or status."""
    child = os.fork()
    if child == 0:
        main(["train", *arguments])
    while kill_at is not None:
        if kill_at.exists():
            os.kill(child, signal.SIGKILL)
            break
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_stages(data: str, out: Path, killed: bool) -> None:
    """The three stages, each killed once and resumed if so wished."""
    for arguments, log in stages(data, out):
        if killed:
            status = attempt(arguments, log)
            assert status == -signal.SIGKILL, f"ended with {status} before it could be killed"
            print("killed with", len(log.read_text().splitlines()) - 1, "epochs done", flush=True)
        status = attempt([*arguments, *(["--resume"] if killed else [])], None)
        assert status == 0, f"ended with {status}"


if __name__ == "__main__":
    register_model("tiny")(lambda **arguments: GFNet(TINY, **arguments))
    how, data, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if how == "transfer":
        main(["train", *stages(data, out)[0][0]])
    run_stages(data, out / "straight", killed=False)
    run_stages(data, out / "killed", killed=True)
