"""Mutation testing of rooms: how many small faults in their code do their own tests find?

    .venv/bin/pip install cosmic-ray pytest-cov
    python scripts/mutants.py --count 200 power energy

cosmic-ray lists every small change of the code (another operator, number, comparison, ...). A random part of them is
made in a checkout of the last commit, one at a time. First the tests that run the changed lines are run, and where they
find nothing, all tests of the rooms. A mutant that no test finds is shown: it is equivalent to the code, or a test is
missing. Some seconds each; not part of CI.
"""

import ast
import os
import random
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "energy": ["tests/energy", "tests/power", "tests/cli/test_report.py"],
    "power": ["tests/power", "tests/energy"],
}
TIMEOUT_S = 180.0


@click.command()
@click.argument("rooms", nargs=-1, required=True)
@click.option("--count", default=200, show_default=True, help="How many mutants.")
@click.option("--seed", default=0, show_default=True)
@click.option("--again", metavar="N,N,...", help="Of these only the ones with such numbers, as once survived.")
def main(rooms: tuple[str, ...], count: int, seed: int, again: str | None) -> None:
    """Print how many mutants the tests of ROOMS found, and the survivors."""
    from cosmic_ray.mutating import mutate_and_test

    # The checkout's package comes first on the path, before the installed one; no bytecode, which is not made anew
    # for a file that changes twice within a second.
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", OMP_WAIT_POLICY="PASSIVE")
    tests = list(dict.fromkeys(test for room in rooms for test in TESTS.get(room, [f"tests/{room}"])))
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(checkout)], cwd=ROOT, check=True)
        try:
            os.chdir(checkout)
            os.environ["PYTHONPATH"] = str(checkout)
            items = _work_items(rooms)
            chosen = dict(enumerate(random.Random(seed).sample(items, min(count, len(items))), 1))
            if again is not None:
                chosen = {number: chosen[number] for number in map(int, again.split(","))}
            click.echo(f"{len(chosen)} of {len(items)} mutants", err=True)
            # Tests that fail without a mutant would find them all: this run has to pass.
            command = [*_pytest(tests), "--cov=pi_dynn", "--cov-context=test", "--cov-report="]
            subprocess.run(command, check=True, stdout=sys.stderr)
            survivors = 0
            for number, item in chosen.items():
                mutation = item.mutations[0]
                near = _tests_of(str(mutation.module_path), mutation.start_pos[0])
                for stage in filter(None, (near, tests)):
                    result = mutate_and_test(item.mutations, shlex.join(_pytest(stage)), TIMEOUT_S)
                    if result.is_killed:
                        break
                else:
                    survivors += 1
                    click.echo(f"mutant {number}\n{result.diff}")
                click.echo(f"{number}: {survivors} not found", err=True)
            click.echo(f"{len(chosen) - survivors} of {len(chosen)} mutants of {', '.join(rooms)} were found")
        finally:
            os.chdir(ROOT)
            subprocess.run(["git", "worktree", "remove", "--force", str(checkout)], cwd=ROOT, check=True)


def _pytest(tests: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests, "-k", "not cover"]


def _work_items(rooms: tuple[str, ...]) -> list:
    """All mutants of the rooms' files but their texts, in a fixed order."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import WorkDB, use_db

    files = [file for room in rooms for file in sorted(Path("pi_dynn", room).rglob("*.py")) if file.name != "text.py"]
    with use_db("mutants.sqlite", WorkDB.Mode.create) as db:
        init(files, db, {})
        items = list(db.work_items)
    return sorted(items, key=lambda item: (str((m := item.mutations[0]).module_path), m.operator_name, m.occurrence))


def _tests_of(file: str, line: int) -> list[str]:
    """The test functions that ran the innermost statement at a line; none where it runs on import only."""
    from coverage import CoverageData

    statements = [node for node in ast.walk(ast.parse(Path(file).read_bytes())) if isinstance(node, ast.stmt)]
    around = [node for node in statements if node.lineno <= line <= (node.end_lineno or node.lineno)]
    if not around:  # a decorator
        return []
    statement = max(around, key=lambda node: node.lineno)
    data = CoverageData()
    data.read()
    contexts = data.contexts_by_lineno(str(Path(file).resolve()))
    ran = {
        test for n in range(statement.lineno, (statement.end_lineno or 0) + 1) for test in contexts.get(n, ()) if test
    }
    return sorted({test.split("[")[0].split("|")[0] for test in ran})


if __name__ == "__main__":
    main()
