"""Bundles with random faults: each is refused in one line, or answers exactly as the whole one; nothing else may be.

Bytes are changed, cut out, doubled and swapped anywhere, in the archive's central directory, or in its manifest; and
manifests are made to lie: fields removed, of other types, of extreme values, with the hash put right again. Saved
records that lie in the same way have to be refused in one line, or read and printed:

    python benchmarks/mutated_bundles.py --bundles 10000 --manifests 2000
    python benchmarks/mutated_bundles.py --bundles 0 --manifests 0 --records 2000 run.json record.json profile.json
"""

import copy
import io
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from pi_dynn import Preprocess, build_bundle
from pi_dynn.calibrate.records import CalibrationRecord, load_record
from pi_dynn.cli.main import main as run_command
from pi_dynn.cli.status import ExitStatus
from pi_dynn.errors import PiDynnError
from pi_dynn.models import create_model
from pi_dynn.records import file_kind
from pi_dynn.runtime.archive import MANIFEST_FILE, packed, plain_files
from pi_dynn.runtime.bundle import Bundle, load_bundle
from pi_dynn.runtime.info import bundle_info
from pi_dynn.runtime.session import Session

EXTREMES = (
    None,
    True,
    -1,
    0,
    1,
    2**63,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 10_000,
    "\x1b[2J",
    [],
    [[]],
    {},
    [None],
)


@dataclass
class Outcomes:
    """How many were refused, and how many answered the same; `wrong` are the others, with what happened."""

    counts: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def small_bundle() -> Bundle:
    """A bundle of random weights that loads quickly."""
    torch.manual_seed(0)
    model = create_model("b_lenet", num_classes=3, image_size=28, exits="all").eval()
    return build_bundle(
        model, exits=[0], thresholds=[0.5], labels=["a", "b", "c"], preprocess=Preprocess(size=28), precision="fp32"
    )


def answer_of(bundle: Bundle, x: torch.Tensor) -> tuple[Any, ...]:
    """What the bundle says to `x`, without the time it took."""
    answer = Session(bundle, threads=1, engine="fp32").classify(x)
    return answer.label, answer.class_index, answer.exit_index, answer.probability, answer.score


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one fault."""
    changed = bytearray(data)
    directory = data.rindex(b"PK\x05\x06") if b"PK\x05\x06" in data else 0
    manifest = data.index(MANIFEST_FILE.encode())
    areas = ((0, len(data)), (max(0, directory - 2000), len(data)), (manifest, min(len(data), manifest + 3000)))
    first, last = rng.choice(areas)
    place = rng.randrange(first, last)
    length = min(rng.choice((1, 1, 1, 2, 4, 16, 500)), len(data) - place)
    kind = rng.randrange(6)
    if kind == 0:
        changed[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        changed[place : place + length] = rng.randbytes(length)
    elif kind == 2:
        del changed[place : place + length]
    elif kind == 3:
        changed[place:place] = changed[place : place + length]
    elif kind == 4:
        del changed[place:]
    else:
        other = rng.randrange(first, last)
        changed[place], changed[other] = changed[other], changed[place]
    return bytes(changed)


def lying(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A manifest or record with one to three lies, the hash left as it is."""
    lied = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        where: Any = lied
        while True:
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(where[key], dict | list) and where[key] and rng.random() < 0.6:
                where = where[key]
                continue
            if key != "weights_sha256":
                if rng.random() < 0.2:
                    del where[key]
                else:
                    where[key] = copy.deepcopy(rng.choice(EXTREMES))
            break
    return lied


def judge(outcomes: Outcomes, path: Path, data: bytes, use: Callable[[Path], Any], expected: Any, what: str) -> None:
    """Use the file at `path` with this content, and note what came of it."""
    path.write_bytes(data)
    try:
        said = use(path)
    except PiDynnError as error:
        outcomes.counts["refused"] += 1
        if "\n" in str(error) or not str(error).isprintable():
            outcomes.wrong.append(f"{what}: the error is no plain line: {str(error)[:200]!r}")
    except Exception as error:  # which a user would see as a traceback
        outcomes.wrong.append(f"{what}: {type(error).__name__}: {str(error)[:200]!r}")
    else:
        outcomes.counts["answered"] += 1
        if expected is not None and said != expected:
            outcomes.wrong.append(f"{what}: answers {said!r} instead of {expected!r}")


def report_on(path: Path) -> None:
    """Print the record at `path` as a user would. Raises: PiDynnError with what `report` says of it."""
    if file_kind(path) == CalibrationRecord.KIND:
        load_record(path)
        return
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run_command(["report", str(path), "--exits", "--csv", str(path.with_suffix(".csv"))])
        except SystemExit as end:
            if end.code not in (None, ExitStatus.OK, ExitStatus.MEASUREMENT_INVALID):
                notes, _, said = err.getvalue().rpartition("pi-dynn: error: ")
                foreign = [line for line in notes.splitlines() if not line.startswith("Note: ")]
                raise PiDynnError("\n".join([*foreign, said.removesuffix("\n")])) from end


def lie_in_records(paths: Sequence[Path], count: int, rng: random.Random, place: Path) -> Outcomes:
    """Lies in the records at `paths` in turn, read and printed from the file `place`."""
    outcomes = Outcomes()
    documents = [json.loads(path.read_text()) for path in paths]
    for number in range(count):
        content = json.dumps(lying(documents[number % len(documents)], rng)).encode()
        what = f"record {number} ({paths[number % len(paths)].name})"
        judge(outcomes, place, content, report_on, None, what)
    return outcomes


@click.command()
@click.argument("records", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--bundles", default=10_000, show_default=True)
@click.option("--manifests", default=2_000, show_default=True)
@click.option("--records", "record_count", default=0, show_default=True, help="Lies in the RECORDS in turn.")
@click.option("--seed", default=0, show_default=True)
def main(records: tuple[Path, ...], bundles: int, manifests: int, record_count: int, seed: int) -> None:
    """Print how many were refused and how many answered; every other outcome, and exit with 1 if there is one."""
    rng = random.Random(seed)
    bundle = small_bundle()
    x = torch.rand(3, 28, 28)
    expected = answer_of(bundle, x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.pt"
        bundle.save(path)
        data = path.read_bytes()
        bytes_changed = Outcomes()
        for number in range(bundles):
            use = lambda path: answer_of(load_bundle(path), x)  # noqa: E731
            judge(bytes_changed, path, mutated(data, rng), use, expected, f"bundle {number}")
        lied = Outcomes()
        files = plain_files(data)
        manifest = json.loads(files[MANIFEST_FILE])
        for number in range(manifests):
            content = packed({**files, MANIFEST_FILE: json.dumps(lying(manifest, rng)).encode()})
            judge(lied, path, content, lambda path: answer_of(load_bundle(path), x), None, f"manifest {number}")
            judge(Outcomes(wrong=lied.wrong), path, content, bundle_info, None, f"manifest {number}, info")
        lied_records = lie_in_records(records, record_count, rng, Path(folder) / "record.json")
    results = {"changed bundles": bytes_changed, "lying manifests": lied, "lying records": lied_records}
    for name, outcomes in results.items():
        counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.counts.items()))
        click.echo(f"{name}: {counts or 'none'}, {len(outcomes.wrong)} otherwise")
        for line in outcomes.wrong:
            click.echo(f"  {line}")
    if any(outcomes.wrong for outcomes in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
