#!/usr/bin/env python3
"""Instructions per image on an emulated Cortex-A72 and Cortex-A76, beside the limits this project sets itself.

    scripts/arm_emulation.sh setup
    python benchmarks/arm/instructions.py                    # every network, engine onednn
    python benchmarks/arm/instructions.py --engine qnnpack --network 12-192@128
    python benchmarks/arm/instructions.py --peers            # ONNX Runtime; after scripts/arm_emulation.sh peers
    python benchmarks/arm/instructions.py --check            # the smallest network against budgets.json

One thread, one image, full depth, random weights: what a weight is worth changes no count. Counts of one torch
build repeat to a few thousandths; time means nothing under emulation and is not given.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import torch

from pi_dynn import Preprocess, build_bundle, create_model

HERE = Path(__file__).resolve().parent
EMULATION = HERE.parents[1] / "scripts" / "arm_emulation.sh"
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
EXIT_CHECK_LIMITS = (0.04, 0.06)  # of a block
CLASSES = 10


def new_model(network: str) -> torch.nn.Module:
    """`network` with random weights, always the same, and an exit after every block but the last."""
    name, size, _ = NETWORKS[network]
    torch.manual_seed(0)
    return create_model(name, num_classes=CLASSES, image_size=size, exits="all").eval()


def save_bundle(network: str, folder: Path, exits: bool) -> Path:
    """A bundle of `network` with an exit after every block but the last, or with none."""
    model, size = new_model(network), NETWORKS[network][1]
    blocks = model.exit_blocks if exits else []
    labels = [str(k) for k in range(CLASSES)]
    bundle = build_bundle(
        model, exits=blocks, thresholds=[0.5] * len(blocks), labels=labels, preprocess=Preprocess(size=size)
    )
    path = folder / f"{network}{' with exits' if exits else ''}.pt"
    bundle.save(path)
    return path


def measure(core: str, engine: str, bundles: list[Path]) -> list[dict]:
    """What benchmarks/arm/guest.py says of each bundle on `core`. Raises CalledProcessError."""
    return _counted(core, [], "guest.py", [engine, *bundles])


def _counted(core: str, options: list[str], guest: str, arguments: list) -> list[dict]:
    """The JSON lines of a guest program on `core`."""
    with tempfile.NamedTemporaryFile() as counts:
        command = [EMULATION, "run", "--cpu", core, *options, "--count", counts.name, "--", "python", HERE / guest]
        answer = subprocess.run([*command, counts.name, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in answer.stdout.splitlines()]


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


def peers_table(networks: list[str], cores: list[str]) -> str:
    """Markdown: our instructions and those of ONNX Runtime on the same core, with the best of its filter forms."""
    from peers import save_peers

    lines = ["| network | core | pi_dynn int8 | ONNX Runtime int8 | ours / its | its filter |", "|---" * 6 + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for network in networks:
            bundle = save_bundle(network, Path(folder), exits=False)
            graphs = save_peers(new_model(network), Path(folder))
            for core in cores:
                [ours] = measure(core, "onednn", [bundle])
                best = min(_counted(core, ["--site", "peers"], "guest_peers.py", graphs), key=total)
                figures = f"{total(ours) / 1e6:.1f} | {total(best) / 1e6:.1f} | {total(ours) / total(best):.2f}"
                lines.append(f"| {network} | {core} | {figures} | {best['bundle'].split(' ', 1)[1]} |")
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


def run_check(record: bool) -> list[str]:
    """Every engine on both cores on the smallest network; complaints, and new budgets if `record`."""
    complaints, counted = [], {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = save_bundle(CHECKED, Path(folder), exits=False)
        for core in CORES:
            reference = None
            for engine in ("fp32", "onednn", "qnnpack"):
                [row] = measure(core, engine, [bundle])
                counted[f"{core} {engine}"] = total(row)
                click.echo(f"{CHECKED} {core} {engine}: {total(row) / 1e6:.2f} million instructions")
                if record:
                    continue
                complaint = check_budget(core, engine, row, reference)
                complaints += [complaint] if complaint else []
                reference = reference or row["logits"]
    if record:
        BUDGETS.write_text(json.dumps({CHECKED: counted}, indent=1) + "\n")
    return complaints


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)), help="Default: all.")
@click.option("--engine", type=click.Choice(["onednn", "qnnpack", "fp32"]), default="onednn", show_default=True)
@click.option("--core", "cores", multiple=True, type=click.Choice(CORES), help="Default: both.")
@click.option("--peers", is_flag=True, help="Beside ONNX Runtime int8; needs scripts/arm_emulation.sh peers.")
@click.option("--check", is_flag=True, help="Compare every engine with budgets.json and with fp32.")
@click.option("--record", is_flag=True, help="Write budgets.json anew.")
def main(networks, engine: str, cores, peers: bool, check: bool, record: bool) -> None:
    """Count the instructions of an answer on emulated Arm cores."""
    if check or record:
        complaints = run_check(record)
        for complaint in complaints:
            click.echo(f"error: {complaint}", err=True)
        sys.exit(bool(complaints))
    if peers:
        click.echo(peers_table(list(networks or NETWORKS), list(cores or CORES)))
        return
    rows, checks = [], []
    with tempfile.TemporaryDirectory() as folder:
        chosen = list(networks or NETWORKS)
        bundles = [save_bundle(network, Path(folder), exits=False) for network in chosen]
        with_exits = [save_bundle(chosen[0], Path(folder), exits=True)]
        for core in cores or CORES:
            *plain, last = measure(core, engine, bundles + with_exits)
            rows += [(network, core, row) for network, row in zip(chosen, plain, strict=True)]
            checks.append(exit_check(plain[0], last, core))
    click.echo(table(sorted(rows, key=lambda row: chosen.index(row[0]))))
    click.echo("\n".join(["", *checks, "", f"engine {engine}, one thread, one image, full depth"]))


if __name__ == "__main__":
    main()
