#!/usr/bin/env python3
"""Instructions per image on an emulated Cortex-A72 and Cortex-A76, beside the limits this project sets itself.

    scripts/arm_emulation.sh setup
    python benchmarks/arm/instructions.py                    # every network, engine onednn
    python benchmarks/arm/instructions.py --engine qnnpack --network 12-192@128
    python benchmarks/arm/instructions.py --precision int8-static
    python benchmarks/arm/instructions.py --operators --network 12-384@224 --core cortex-a72
    python benchmarks/arm/instructions.py --peer onnxruntime --peer executorch   # after arm_emulation.sh peers
    python benchmarks/arm/instructions.py --eager efficientnet_lite0@128      # as a network of torch runs unchanged
    python benchmarks/arm/instructions.py --check            # the smallest network and what is shipped against budgets

One thread, one image, full depth, random weights: what a weight is worth changes no count. Counts of one torch
build repeat to a few thousandths; time means nothing under emulation and is not given.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import click
import torch
from peers import NAMES, PEERS, save_peers

from pi_dynn import Preprocess, build_bundle, create_model, load_bundle
from pi_dynn.latency.emulated import count_exits, guest_rows
from pi_dynn.runtime.manifest import INT8_STATIC

HERE = Path(__file__).resolve().parent
BUDGETS = HERE / "budgets.json"
SLACK = 1.03
CORES = ("cortex-a72", "cortex-a76")
# network: (name, image size, at most so many million instructions on each core)
NETWORKS = {
    "12-192@128": ("gfnet_12_192", 128, (92, 52)),
    "12-384@128": ("gfnet_12_384", 128, (275, 132)),
    "12-192@256": ("gfnet_12_192", 256, (335, 178)),
    "12-384@224": ("gfnet_12_384", 224, (825, 390)),
}
CHECKED = "12-192@128"
SHIPPED = {"lite0": "litert", "gfnet": "litert"}  # bundle: its cheapest form
EXIT_CHECK_LIMITS = (0.04, 0.06)  # of a block
CLASSES = 10
LEAST_SHARE = 0.005  # of an answer, for an operator to have a line of its own
ILLEGAL_INSTRUCTION = 128 + signal.SIGILL


def new_model(network: str) -> torch.nn.Module:
    """`network` with random weights, always the same, and an exit after every block but the last."""
    name, size, _ = NETWORKS[network]
    torch.manual_seed(0)
    return create_model(name, num_classes=CLASSES, image_size=size, exits="all").eval()


def save_bundle(network: str, folder: Path, exits: bool, precision: str = "int8") -> Path:
    """A bundle of `network` with an exit after every block but the last, or with none."""
    model, size = new_model(network), NETWORKS[network][1]
    blocks = model.exit_blocks if exits else []
    labels = [str(k) for k in range(CLASSES)]
    bundle = build_bundle(
        model,
        exits=blocks,
        thresholds=[0.5] * len(blocks),
        precision=precision,
        labels=labels,
        preprocess=Preprocess(size=size),
        calibration=torch.randn(16, 3, size, size) if precision == INT8_STATIC else None,
    )
    path = folder / f"{network}{' with exits' if exits else ''}.pt"
    bundle.save(path)
    return path


def measure(core: str, engine: str, bundles: list[Path]) -> list[dict]:
    """What benchmarks/arm/guest.py says of each bundle on `core`. Raises CalledProcessError."""
    return guest_rows(core, [], HERE / "guest.py", [engine, *bundles])


def total(row: dict) -> int:
    return sum(row["instructions"].values())


def table(rows: list[tuple[str, str, dict]]) -> str:
    """Markdown: network, core, millions of instructions, the limit, and the share of each class."""
    classes = list(rows[0][2]["instructions"])
    lines = ["| network | core | million | limit | " + " | ".join(classes) + " |", "|---" * (4 + len(classes)) + "|"]
    for network, core, row in rows:
        limit = NETWORKS[network][2][CORES.index(core)]
        shares = " | ".join(f"{row['instructions'][name] / 1e6:.1f}" for name in classes)
        lines.append(f"| {network} | {core} | {total(row) / 1e6:.1f} | {limit} | {shares} |")
    return "\n".join(lines)


def peers_table(networks: list[str], cores: list[str], peers: list[str]) -> Iterator[str]:
    """Lines of Markdown: our instructions and those of peers on the same core, with the best of their filter forms."""
    yield f"| network | core | pi_dynn int8 | {' | '.join(f'{NAMES[peer]} int8 | ours / its' for peer in peers)} |"
    yield "|---" * (3 + 2 * len(peers)) + "|"
    for network in networks:
        with tempfile.TemporaryDirectory() as folder:
            bundle = save_bundle(network, Path(folder), exits=False)
            files = {peer: save_peers(new_model(network), peer, Path(folder)) for peer in peers}
            for core in cores:
                [ours] = measure(core, "onednn", [bundle])
                cells = [_beside(total(ours), core, files[peer]) for peer in peers]
                yield f"| {network} | {core} | {total(ours) / 1e6:.1f} | {' | '.join(cells)} |"


def _beside(ours: int, core: str, files: list[Path]) -> str:
    """Two cells: the fewest instructions a peer takes, with the filter form they are for, and ours over them."""
    try:
        best = min(
            (guest_rows(core, ["--site", "peers"], HERE / "guest_peers.py", [file])[0] for file in files), key=total
        )
    except subprocess.CalledProcessError as error:
        if error.returncode != ILLEGAL_INSTRUCTION:
            raise
        return "illegal instruction | -"
    return f"{total(best) / 1e6:.1f} ({best['bundle'].split(' ', 1)[1]}) | {ours / total(best):.2f}"


def eager_table(networks: Sequence[str], cores: Sequence[str]) -> str:
    """Markdown: instructions of each NAME@SIZE as torch runs it in fp32, without any deploy form."""
    lines = ["| network, fp32 | core | million |", "|---" * 3 + "|"]
    for core in cores:
        named = [f"{network.replace('@', ':')}:0" for network in networks]
        for network, row in zip(networks, guest_rows(core, [], HERE / "guest_eager.py", named), strict=True):
            lines.append(f"| {network} | {core} | {row['counts']['instructions'] / 1e6:.1f} |")
    return "\n".join(lines)


def operators_table(network: str, core: str, engine: str, precision: str) -> str:
    """Markdown: every operator of an answer with its calls, millions of instructions and share, the largest first."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = save_bundle(network, Path(folder), exits=False, precision=precision)
        [whole] = measure(core, engine, [bundle])
        rows = guest_rows(core, [], HERE / "guest_operators.py", [engine, bundle])
    listed = [row for row in rows if row["instructions"] >= LEAST_SHARE * total(whole)]
    listed.sort(key=lambda row: -row["instructions"])
    others = total(whole) - sum(row["instructions"] for row in listed)
    listed.append({"operator": "all others", "calls": "", "instructions": others})
    lines = [f"{network}, {core}, {precision}: {total(whole) / 1e6:.1f} million", ""]
    lines += ["| operator | calls | million | share |", "|---" * 4 + "|"]
    for row in listed:
        share = row["instructions"] / total(whole)
        lines.append(f"| {row['operator']} | {row['calls']} | {row['instructions'] / 1e6:.1f} | {share:.1%} |")
    return "\n".join(lines)


def exit_check(plain: dict, with_exits: dict, core: str) -> str:
    """One line: what a check costs beside a block; 12 blocks, 11 checks."""
    check, block = (total(with_exits) - total(plain)) / 11, total(plain) / 12
    limit = EXIT_CHECK_LIMITS[CORES.index(core)]
    return f"exit check, {core}: {check / 1e6:.3f} million, {check / block:.1%} of a block (limit {limit:.0%})"


def check_budget(core: str, engine: str, row: dict, reference: list[float] | None) -> str | None:
    """What is wrong with a row: too many instructions, or logits far from those of fp32. None if nothing is."""
    budget = json.loads(BUDGETS.read_text())[CHECKED].get(f"{core} {engine}")
    if budget is not None and total(row) > SLACK * budget:
        return (
            f"{core} {engine}: {total(row)} instructions, over the budget of {budget} by {total(row) / budget - 1:.1%}"
        )
    if reference is not None:
        got, want = torch.tensor(row["logits"]), torch.tensor(reference)
        error = float((got - want).norm() / want.norm())
        if not error < 0.05:
            return f"{core} {engine}: logits differ from those of fp32 by {error:.1%}"
    return None


def mean_instructions(name: str, core: str, shares: Sequence[float]) -> float:
    """Instructions of a mean answer of a shipped bundle of which these shares (K) leave at each exit, on `core`."""
    counts = count_exits(load_bundle(name, form=SHIPPED[name]), core)
    means = {one.engine: 0.0 for one in counts}
    for one in counts:
        means[one.engine] += shares[one.exit_index] * one.counts["instructions"]
    return min(means.values())


def check_shipped(record: bool) -> list[str]:
    """What is shipped, on both cores; complaints, and new budgets if `record`. Shares are of `frontier.py --record`."""
    complaints, budgets = [], json.loads(BUDGETS.read_text())
    for name, shares in budgets["shares"].items():
        for core in CORES:
            mean, budget = mean_instructions(name, core, shares), budgets["shipped"].get(f"{name} {core}")
            click.echo(f"{name} {core}: {mean / 1e6:.2f} million instructions in a mean answer")
            if record:
                budgets["shipped"][f"{name} {core}"] = round(mean)
            elif budget is None or mean > SLACK * budget:
                complaints.append(f"{name} {core}: {mean:.0f} instructions, over the budget of {budget}")
    if record:
        BUDGETS.write_text(json.dumps(budgets, indent=1) + "\n")
    return complaints


def run_check(record: bool) -> list[str]:
    """Every engine on both cores on the smallest network; complaints, and new budgets if `record`."""
    complaints, counted = [], {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = save_bundle(CHECKED, Path(folder), exits=False)
        runs = list(product(CORES, ("fp32", "onednn", "qnnpack")))
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # counts do not depend on what runs beside
            rows = pool.map(lambda run: measure(*run, [bundle]), runs)
            for (core, engine), [row] in zip(runs, rows):
                counted[f"{core} {engine}"] = total(row)
                click.echo(f"{CHECKED} {core} {engine}: {total(row) / 1e6:.2f} million instructions")
                if engine == "fp32":
                    reference = row["logits"]
                complaint = None if record else check_budget(core, engine, row, reference)
                complaints += [complaint] if complaint else []
    if record:
        BUDGETS.write_text(json.dumps(json.loads(BUDGETS.read_text()) | {CHECKED: counted}, indent=1) + "\n")
    return complaints


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)), help="Default: all.")
@click.option("--engine", type=click.Choice(["onednn", "qnnpack", "fp32"]), default="onednn", show_default=True)
@click.option("--core", "cores", multiple=True, type=click.Choice(CORES), help="Default: both.")
@click.option("--precision", type=click.Choice(["int8", INT8_STATIC]), default="int8", show_default=True)
@click.option("--operators", is_flag=True, help="What each operator takes, network by network.")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(PEERS),
    help="Beside others in int8; needs scripts/arm_emulation.sh peers, and executorch here for its files.",
)
@click.option("--eager", multiple=True, metavar="NAME@SIZE", help="A network of `pi-dynn models`, not deployed at all.")
@click.option("--check", is_flag=True, help="Compare every engine with budgets.json and with fp32.")
@click.option("--record", is_flag=True, help="Write budgets.json anew.")
def main(
    networks, engine: str, cores, precision: str, operators: bool, peers, eager, check: bool, record: bool
) -> None:
    """Count the instructions of an answer on emulated Arm cores."""
    if check or record:
        complaints = run_check(record) + check_shipped(record)
        for complaint in complaints:
            click.echo(f"error: {complaint}", err=True)
        sys.exit(bool(complaints))
    chosen, cores = list(networks or NETWORKS), list(cores or CORES)
    if eager:
        click.echo(eager_table(eager, cores))
        return
    if peers:
        for line in peers_table(chosen, cores, list(peers)):
            click.echo(line)
        return
    if operators:
        for network in chosen:
            for core in cores:
                click.echo(operators_table(network, core, engine, precision) + "\n")
        return
    rows, checks = [], []
    with tempfile.TemporaryDirectory() as folder:
        bundles = [save_bundle(network, Path(folder), exits=False, precision=precision) for network in chosen]
        with_exits = [save_bundle(chosen[0], Path(folder), exits=True, precision=precision)]
        for core in cores:
            *plain, last = measure(core, engine, bundles + with_exits)
            rows += [(network, core, row) for network, row in zip(chosen, plain, strict=True)]
            checks.append(exit_check(plain[0], last, core))
    click.echo(table(sorted(rows, key=lambda row: chosen.index(row[0]))))
    click.echo("\n".join(["", *checks, "", f"engine {engine}, {precision}, one thread, one image, full depth"]))


if __name__ == "__main__":
    main()
