"""`pi-dynn`: the group of commands. Each command's module is imported only when it runs."""

import importlib
import os
import sys
from difflib import get_close_matches

import click

from pi_dynn import __version__
from pi_dynn.cli.printing import discard_stdout
from pi_dynn.cli.status import ExitStatus, show_error, status_of
from pi_dynn.errors import PiDynnError
from pi_dynn.torch_build import check_torch, cuda_hint, size_thread_teams

# name -> (module, one line for --help), in the order of the help page
COMMANDS = {
    "classify": ("pi_dynn.cli.classify", "Classify photographs."),
    "evaluate": ("pi_dynn.cli.evaluate", "Measure accuracy, exits and cost on labelled images."),
    "calibrate": ("pi_dynn.cli.calibrate", "Choose exit thresholds: for an accuracy, a budget, or with a promise."),
    "energy": ("pi_dynn.cli.energy", "Measure the energy of an answer, in millijoules."),
    "benchmark": ("pi_dynn.cli.benchmark", "Measure latency, variants interleaved in one run."),
    "profile": ("pi_dynn.cli.profile", "Show where the time of an answer goes, step by step."),
    "learn": ("pi_dynn.cli.learn", "Make a bundle from a folder of photographs, in one command."),
    "train": ("pi_dynn.cli.train", "Train a network, distil it, or teach it to stop early."),
    "export": ("pi_dynn.cli.export", "Make a bundle from a checkpoint."),
    "report": ("pi_dynn.cli.report", "Make tables, and a page with plots, of saved runs."),
    "watch": ("pi_dynn.cli.watch", "Watch a camera, a video or a folder that fills."),
    "meter": ("pi_dynn.cli.meter", "Show what a power meter reads, or serve it to another board."),
    "serve": ("pi_dynn.cli.serve", "Serve a live page and an HTTP API."),
    "doctor": ("pi_dynn.cli.doctor", "Show what this machine offers, and cures for what is wrong."),
    "info": ("pi_dynn.cli.info", "Show what a bundle is."),
    "models": ("pi_dynn.cli.models", "List the networks that can be built."),
}

NOT_IN_LITE = ("torch", "torchvision", "safetensors")
# The doctor says what is wrong with a torch that cannot be imported.
WITHOUT_TORCH = {"doctor", "info", "meter", "report"}


class LazyGroup(click.Group):
    """A group that knows its commands by name and loads one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS)
            ctx.fail(f"no command {name!r}" + (f": did you mean {' or '.join(near)}?" if near else ""))
        if name not in WITHOUT_TORCH:
            check_torch()
        return importlib.import_module(COMMANDS[name][0]).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pi-dynn", message="%(prog)s %(version)s")
def cli() -> None:
    """Classify images with networks that stop as soon as they are sure, and measure what it costs.

    \b
    Example:
      pi-dynn classify photo.jpg
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every failure is one line and an exit status (PI_DYNN_DEBUG=1: the traceback)."""
    size_thread_teams(sys.argv[1:] if arguments is None else arguments)
    try:
        status = cli.main(arguments, prog_name="pi-dynn", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else ExitStatus.OK)
    except click.UsageError as error:
        error.show()
        sys.exit(ExitStatus.USAGE)
    except click.ClickException as error:
        _fail(error.format_message(), ExitStatus.ERROR)
    except (click.Abort, KeyboardInterrupt) as error:
        _fail(f"interrupted: {error}" if str(error) else "interrupted", ExitStatus.INTERRUPTED)
    except PiDynnError as error:
        if os.environ.get("PI_DYNN_DEBUG"):
            raise
        _fail(str(error), status_of(error))
    except BrokenPipeError:
        discard_stdout()
        sys.exit(ExitStatus.OK)
    except (ImportError, OSError, MemoryError) as error:
        if os.environ.get("PI_DYNN_DEBUG"):
            raise
        if isinstance(error, OSError) and error.filename and error.strerror:
            _fail(f"{error.filename}: {error.strerror}", ExitStatus.ERROR)
        if isinstance(error, ModuleNotFoundError) and error.name in NOT_IN_LITE:
            lite = f"this needs {error.name}, which `setup.sh --lite` leaves out: run ./scripts/setup.sh"
            _fail(lite, ExitStatus.ERROR)
        hint = cuda_hint() if isinstance(error, ImportError | OSError) else None
        _fail(f"{type(error).__name__}: {error}; {hint or 'PI_DYNN_DEBUG=1 shows where'}", ExitStatus.ERROR)


def _fail(message: str, status: ExitStatus) -> None:
    show_error(message)
    sys.exit(status)
