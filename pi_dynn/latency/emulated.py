"""Counts of an answer on an emulated core: how many instructions, and how many lines its data caches miss.

It needs a checkout of the project on Linux x86-64, where `scripts/arm_emulation.sh` makes the boards.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pi_dynn
from pi_dynn.errors import InputError
from pi_dynn.latency.records import ExitCounts
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.engine_choice import CANDIDATES
from pi_dynn.runtime.forms import LITERT
from pi_dynn.runtime.machine_cache import MachineCache
from pi_dynn.runtime.manifest import Manifest
from pi_dynn.runtime.stage_network import ENGINE_OF_GRAPHS, ONNXRUNTIME

ROOT = Path(pi_dynn.__file__).resolve().parents[1]
EMULATION = ROOT / "scripts" / "arm_emulation.sh"
GUEST = ROOT / "benchmarks" / "arm" / "guest_exits.py"
SITES = {ONNXRUNTIME: "peers", LITERT: "litert"}  # commands of arm_emulation.sh, and what they set up
COUNTS = MachineCache("counts.json")  # one per bundle and core

Run = Callable[[Sequence[str | Path]], str]


def run_command(command: Sequence[str | Path]) -> str:
    """The standard output of a command; what it says on stderr is shown. Raises: CalledProcessError."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def guest_rows(
    core: str, options: Sequence[str], guest: Path, arguments: Sequence[str | Path], run: Run = run_command
) -> list[dict[str, Any]]:
    """The JSON lines of a program in benchmarks/arm that counts on `core`; `options` are those of arm_emulation.sh.

    Raises: CalledProcessError, OSError.
    """
    with tempfile.NamedTemporaryFile() as counts:
        given: list[str | Path] = ["--cpu", core, *options, "--count", counts.name]
        text = run([EMULATION, "run", *given, "--", "python", guest, counts.name, *arguments])
    return [json.loads(line) for line in text.splitlines()]


def count_exits(
    bundle: Bundle, core: str, notify: Callable[[str], object] = lambda text: None, run: Run = run_command
) -> list[ExitCounts]:
    """Counts of every exit of a bundle on `core`, on each engine that Arm has; kept for the bundle on this machine.

    `notify` gets a line where counting begins.

    Raises: InputError without a checkout, where no board can be made, or for a bundle that does not run there.
    """
    known = COUNTS.get(bundle.sha256, core)
    if known is not None:
        return [ExitCounts.from_dict(values) for values in known]
    if not EMULATION.exists():
        raise InputError(f"{EMULATION}: a prediction needs a checkout of the project, in which the boards are emulated")
    notify(f"counting on an emulated {core}, which takes minutes the first time")
    engines = _engines(bundle.manifest)
    site = SITES.get(engines[0])
    options = [] if site is None else ["--site", site]
    try:
        run([EMULATION, site or "setup"])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "bundle"
            bundle.save(file)
            rows = [
                ExitCounts.from_dict(row)
                for row in guest_rows(core, [*options, "--caches"], GUEST, [file, *engines], run)
            ]
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"the answer on an emulated {core} could not be counted ({error}): see docs/arm.md for what that needs"
        ) from error
    COUNTS.keep_if_writable([row.to_dict() for row in rows], bundle.sha256, core)
    return rows


def _engines(manifest: Manifest) -> tuple[str, ...]:
    """The engines that a Raspberry Pi would try. A network that does not compute in floats has int8 convolutions, for
    which onednn falls back to a reference kernel there: a thousand million instructions for a small network.
    """
    if manifest.format in ENGINE_OF_GRAPHS:
        return (ENGINE_OF_GRAPHS[manifest.format],)
    if manifest.precision == "fp32":
        return ("fp32",)
    return CANDIDATES["arm"] if manifest.has_floats else ("qnnpack",)
