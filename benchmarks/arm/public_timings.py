#!/usr/bin/env python3
"""Writes pi_dynn/latency/board_timings.json: what predictions of milliseconds are fitted to.

    scripts/arm_emulation.sh ncnn
    pip install pnnx==20240226
    python benchmarks/arm/public_timings.py --pretrained   # an hour

The times are those of one thread in ncnn's benchmark/README.md, for a Raspberry Pi 4 at 1.8 GHz and a Raspberry Pi 5
at 2.4 GHz. Each network is made here with random weights, converted by pnnx, and counted on the emulated core, where
ncnn is about as old as the table. The int8 ones get int8 layers as ncnn2int8 sets them.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import click
import torch
from public_networks import NETWORKS

from pi_dynn import Preprocess, build_bundle, load_bundle
from pi_dynn.deploy.litert import litert_bundle
from pi_dynn.deploy.onnx import onnx_bundle
from pi_dynn.errors import InputError
from pi_dynn.files import write_text
from pi_dynn.latency.boards import board_model, board_timings, timed_network
from pi_dynn.latency.emulated import count_exits, guest_rows
from pi_dynn.latency.records import Board, BoardBenchmark, BoardTimings, TimedNetwork
from pi_dynn.latency.text import board_model_text
from pi_dynn.records import read_record
from pi_dynn.runtime.forms import FORM_NAMES, LITERT, ONNX, TORCHSCRIPT
from pi_dynn.runtime.manifest import INT8_STATIC
from pi_dynn.train.learn.fine_tune import start_network

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "pi_dynn" / "latency" / "board_timings.json"
SOURCE = "ncnn, benchmark/README.md: one thread, Raspberry Pi 4 Model B at 1.8 GHz and Raspberry Pi 5 at 2.4 GHz"
RUNTIME = "ncnn 1.0.20240102"
BOARDS = [
    Board("pi4", "Raspberry Pi 4", "cortex-a72", 1.8e9, ["instructions", "miss_l1"]),
    Board("pi5", "Raspberry Pi 5", "cortex-a76", 2.4e9, ["instructions", "miss_l3"]),
]
PUBLISHED_MS = {  # network: image size, Raspberry Pi 4, Raspberry Pi 5
    "squeezenet": (227, 73.35, 11.77),
    "squeezenet_int8": (227, 69.17, 11.67),
    "mobilenet": (224, 123.76, 20.24),
    "mobilenet_int8": (224, 84.66, 14.38),
    "mobilenet_v2": (224, 92.98, 16.21),
    "mobilenet_v3": (224, 72.48, 11.64),
    "shufflenet_v2": (224, 41.62, 7.07),
    "mnasnet": (224, 83.6, 12.93),
    "efficientnet_b0": (224, 129.45, 24.12),
    "regnety_400m": (224, 105.39, 16.41),
    "blazeface": (128, 12.54, 2.98),
    "resnet18": (224, 190.8, 29.54),
    "resnet18_int8": (224, 157.92, 36.3),
    "alexnet": (227, 139.34, 35.24),
    "fastestdet": (352, 52.11, 7.33),
}
PRETRAINED = {  # what learn may choose: network and image sizes in pixels
    "efficientnet_lite0": (64, 96, 128, 160, 192, 224),
    "efficientnet_lite1": (160, 224),
    "efficientnet_lite2": (224,),
}
INT8_TERM = {"Convolution": 2, "InnerProduct": 2, "ConvolutionDepthWise": 1}  # of ncnn's parameter 8
REQUANTISED = 100  # added to it where nothing but int8 layers reads a layer's output


def save_ncnn(name: str, folder: Path) -> Path:
    """The network `name` as ncnn's .param file; those with _int8 have int8 layers."""
    base, size = name.removesuffix("_int8"), PUBLISHED_MS[name][0]
    scripted = folder / f"{base}.pt"
    torch.jit.trace(NETWORKS[base]().eval(), torch.rand(1, 3, size, size)).save(scripted)
    command = ["pnnx", scripted, f"inputshape=[1,3,{size},{size}]", "fp16=0"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    param = folder / f"{base}.ncnn.param"
    if name == base:
        return param
    path = folder / f"{name}.param"
    path.write_text(int8_layers(param.read_text()))
    return path


def int8_layers(param: str) -> str:
    """An .param text in which convolutions and linear layers compute in int8, as ncnn2int8 writes it."""
    lines = param.splitlines()
    words = [line.split() for line in lines[2:]]  # kind, name, counts of inputs and outputs, then their blobs
    inputs = [entry[4 : 4 + int(entry[2])] for entry in words]
    outputs = [entry[4 + int(entry[2]) : 4 + int(entry[2]) + int(entry[3])] for entry in words]

    def read_by_int8(blob: str) -> bool:
        readers = [k for k, blobs in enumerate(inputs) if blob in blobs]
        return bool(readers) and all(
            words[k][0] in INT8_TERM or words[k][0] == "Split" and all(map(read_by_int8, outputs[k])) for k in readers
        )

    for k, entry in enumerate(words):
        if entry[0] in INT8_TERM:
            requantised = entry[0] != "InnerProduct" and read_by_int8(outputs[k][0])
            lines[2 + k] += f" 8={INT8_TERM[entry[0]] + (REQUANTISED if requantised else 0)}"
    return "\n".join(lines) + "\n"


def count_networks(core: str, files: dict[str, Path]) -> dict[str, dict[str, int]]:
    """Counts of an answer of each ncnn network on `core`, by name."""
    networks = [f"{name}={file}:{PUBLISHED_MS[name][0]}" for name, file in files.items()]
    rows = guest_rows(core, ["--site", "ncnn", "--caches"], HERE / "guest_ncnn.py", networks)
    return {row["name"]: row["counts"] for row in rows}


def count_pretrained(name: str, size: int) -> dict[str, dict[str, dict[str, int]]]:
    """Counts at full depth, by form and core, of the network `learn` makes of the pretrained `name`."""
    torch.manual_seed(0)
    model, _ = start_network(name, 10, size)
    bundle = build_bundle(
        model.eval(),
        exits=[],
        thresholds=[],
        precision=INT8_STATIC,
        labels=[str(k) for k in range(10)],
        preprocess=Preprocess(size=size),
        calibration=torch.randn(16, 3, size, size),
    )
    forms = {TORCHSCRIPT: bundle, ONNX: onnx_bundle(bundle), LITERT: litert_bundle(bundle)}
    return {
        form: {board.core: count_exits(one, board.core)[-1].counts for board in BOARDS} for form, one in forms.items()
    }


def measured_network(file: Path, bundle_file: Path) -> TimedNetwork:
    """What somebody measured with a bundle, counted here. Raises: InputError."""
    benchmark = read_record(BoardBenchmark, file, InputError, "ask for it again")
    bundle = load_bundle(bundle_file)
    if bundle.sha256 != benchmark.bundle_sha256:
        raise InputError(f"{file} is of another bundle than {bundle_file}: give the one it was measured with")
    return timed_network(benchmark, {board.core: count_exits(bundle, board.core) for board in BOARDS})


@click.command()
@click.option(
    "--measured",
    "measured",
    type=(click.Path(exists=True, path_type=Path), click.Path(exists=True, path_type=Path)),
    metavar="FILE BUNDLE",
    multiple=True,
    help="Also fit to what `pi-dynn benchmark --save FILE` wrote of BUNDLE on a board.",
)
@click.option("--pretrained", is_flag=True, help="Count the networks that learn may choose, too; else they are kept.")
def main(measured: tuple[tuple[Path, Path], ...], pretrained: bool) -> None:
    """Count the networks of the published table, and write the file."""
    if pretrained or not OUT.exists():
        ours: dict[str, dict] = {form: {} for form in FORM_NAMES}
        for name, sizes in PRETRAINED.items():
            for size in sizes:
                for form, counts_of_core in count_pretrained(name, size).items():
                    ours[form][f"{name}@{size}"] = counts_of_core
    else:
        ours = BoardTimings.from_dict(json.loads(OUT.read_text())).pretrained
    with tempfile.TemporaryDirectory() as folder:
        files = {name: save_ncnn(name, Path(folder)) for name in PUBLISHED_MS}
        counts = {board.core: count_networks(board.core, files) for board in BOARDS}
    networks = [
        TimedNetwork(
            name,
            size,
            {"pi4": pi4_ms / 1e3, "pi5": pi5_ms / 1e3},
            {core: counted[name] for core, counted in counts.items()},
        )
        for name, (size, pi4_ms, pi5_ms) in PUBLISHED_MS.items()
    ]
    networks += [measured_network(file, bundle) for file, bundle in measured]
    timings = BoardTimings(SOURCE, RUNTIME, BOARDS, networks, ours)
    write_text(OUT, json.dumps(timings.to_dict(), indent=1) + "\n")
    board_timings.cache_clear()
    for board in BOARDS:
        click.echo(board_model_text(board_model(board.name)) + "\n")


if __name__ == "__main__":
    main()
