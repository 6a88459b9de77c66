"""What leaving at each exit costs, measured: from a saved energy run or from a benchmark."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pi_dynn.errors import CalibrationError
from pi_dynn.jobs.energy_file import is_run, replay_run
from pi_dynn.records import LatencyRow


def read_exit_costs(path: str | Path, unit: str, blocks: Sequence[int], bundle: str) -> list[float]:
    """Cost of each exit of `blocks` (K), the last answer included, in `unit`: "s" or "J".

    `path` is what `energy --each-exit --save` or `benchmark --each-exit --json` wrote. Neighbours that noise has
    put in the wrong order cost the same.

    Raises: CalibrationError for a file without these figures, or of another bundle.
    """
    path = Path(path)
    costs = _of_run(path, unit, bundle) if is_run(path) else _of_benchmark(path, unit, blocks[-1])
    lacking = [block for block in blocks if costs.get(block) is None]
    if lacking:
        raise CalibrationError(
            f"{path}: has no {'energy' if unit == 'J' else 'latency'} of the exit after block {lacking[0] + 1}: "
            "measure this bundle again with --each-exit"
        )
    return np.maximum.accumulate([float(costs[block]) for block in blocks]).tolist()


def _of_run(path: Path, unit: str, bundle: str) -> dict[int, float | None]:
    results = [result for result in replay_run(path)[1] if result.bundle == bundle]
    if not results:
        raise CalibrationError(f"{path}: is a run of another bundle than {bundle[:12]}: measure this one")
    if unit == "J" and not results[-1].resolved:
        raise CalibrationError(f"{path}: its energies do not stand out of their uncertainty: measure longer")
    return {row.block_index: row.net_j if unit == "J" else row.latency_s for row in results[-1].exits}


def _of_benchmark(path: Path, unit: str, last: int) -> dict[int, float | None]:
    """Medians of the forced exits; the row of the full depth does not name its block, `last`."""
    if unit == "J":
        raise CalibrationError(f"{path}: is no saved energy run: make one with `pi-dynn energy --each-exit --save`")
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [LatencyRow.from_dict(entry) for entry in entries if "cold_start" not in entry]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CalibrationError(
            f"{path}: neither a saved energy run nor the output of `pi-dynn benchmark --json` ({error})"
        ) from error
    costs: dict[int, float | None] = {}
    for row in rows:
        found = re.search(r", block (\d+)$", row.name)
        if found:
            costs.setdefault(int(found.group(1)) - 1, row.median_s)
        elif row.name.endswith(", full depth"):
            costs.setdefault(last, row.median_s)
    return costs
