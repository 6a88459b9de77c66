"""How long a fresh process takes to its first answer, and how much memory it needs."""

import json
import subprocess
import sys
from pathlib import Path

from pi_dynn.errors import PiDynnError
from pi_dynn.records import ColdStart
from pi_dynn.stats import median

# The clock is ours and imports nothing; all times are its own.
_PROGRAM = """
import json, sys
from pathlib import Path
from pi_dynn.clock import PerfClock
clock, marks = PerfClock(), []
mark = lambda: marks.append(clock.now_ns())
bundle, engine, threads, photograph = json.loads(sys.argv[1])
mark()
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.session import Session
mark()
loaded = load_bundle(bundle)
mark()
session = Session(loaded, threads=threads, engine=engine)
mark()
session.classify(photograph)
mark()
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0])
print(json.dumps([marks, peak, session.engine, session.threads]))
"""
_KIB = 1024  # the unit of VmHWM; ru_maxrss would begin with the memory of the process that started this one


def measure_cold_start(
    bundle: Path | None, engine: str, threads: int | None, photograph: Path, processes: int = 3
) -> ColdStart:
    """Start `processes` processes one after the other; each loads the bundle and answers one photograph.

    The engine is chosen anew only if no choice is remembered, as in any other run.

    Raises: PiDynnError if such a process fails.
    """
    arguments = json.dumps([None if bundle is None else str(bundle), engine, threads, str(photograph)])
    parts: list[list[float]] = [[], [], [], []]
    peaks = []
    for _ in range(processes):
        run = subprocess.run([sys.executable, "-c", _PROGRAM, arguments], capture_output=True, text=True)
        if run.returncode != 0:
            reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise PiDynnError(f"a fresh process could not answer {photograph} ({reason}): try `pi-dynn classify` on it")
        marks_ns, peak, used, count = json.loads(run.stdout.splitlines()[-1])
        for part, start_ns, stop_ns in zip(parts, marks_ns, marks_ns[1:], strict=False):
            part.append((stop_ns - start_ns) / 1e9)
        peaks.append(peak * _KIB)
    import_s, read_s, ready_s, first_s = (median(part) for part in parts)
    return ColdStart(used, count, processes, import_s, read_s, ready_s, first_s, max(peaks))
