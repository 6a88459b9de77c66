"""Mutation testing of the rooms `power` and `energy`: how many small faults in the code do their own tests find?

    .venv/bin/pip install cosmic-ray
    python scripts/mutants.py --count 200

cosmic-ray lists every small change of the code (another operator, number, comparison, ...); a random part of them is
made, each in a checkout of its own, and the rooms' tests are run on each. A mutant that no test finds is shown:
it is equivalent to the code, or a test is missing. It takes about a quarter of a minute each; not part of CI.
"""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
[cosmic-ray]
module-path = ["pi_dynn/power", "pi_dynn/energy"]
excluded-modules = ["pi_dynn/*/text.py"]
timeout = 90.0
test-command = "{python} -m pytest -x -q -p no:cacheprovider {tests} -k 'not cover'"

[cosmic-ray.distributor]
name = "local"
"""
TESTS = "tests/energy tests/power tests/cli/test_report.py"


@click.command()
@click.option("--count", default=200, show_default=True, help="How many mutants.")
@click.option("--seed", default=0, show_default=True)
def main(count: int, seed: int) -> None:
    """Print how many mutants the tests found, and the survivors."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(checkout)], cwd=ROOT, check=True)
        try:
            (checkout / "mutants.toml").write_text(CONFIG.format(python=sys.executable, tests=TESTS))
            _cosmic_ray(checkout, "init", "mutants.toml", "session.sqlite")
            with use_db(checkout / "session.sqlite", WorkDB.Mode.open) as db:
                jobs = [item.job_id for item in db.pending_work_items]
                for job in set(jobs) - set(random.Random(seed).sample(sorted(jobs), count)):
                    db.set_result(job, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
            click.echo(f"{count} of {len(jobs)} mutants", err=True)
            _cosmic_ray(checkout, "baseline", "mutants.toml")  # tests that fail without a mutant would find them all
            _cosmic_ray(checkout, "exec", "mutants.toml", "session.sqlite")
            with use_db(checkout / "session.sqlite", WorkDB.Mode.open) as db:
                results = [result for _, result in db.results if result.worker_outcome != WorkerOutcome.SKIPPED]
            survivors = [result.diff for result in results if not result.is_killed]
            for diff in survivors:
                click.echo(diff)
            click.echo(f"{len(results) - len(survivors)} of {len(results)} mutants were found")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(checkout)], cwd=ROOT, check=True)


def _cosmic_ray(checkout: Path, *arguments: str) -> None:
    # The checkout's package comes first on the path, before the installed one; without bytecode, which is not made anew
    # for a file that changes twice within a second.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *arguments], cwd=checkout, check=True, env=environment)


if __name__ == "__main__":
    main()
