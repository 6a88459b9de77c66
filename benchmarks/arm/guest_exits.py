"""Runs on the emulated core: counts an answer of a bundle at each of its exits, on each engine.

    guest_exits.py COUNTS BUNDLE ENGINE...

COUNTS is the file benchmarks/arm/count.c writes to, with its model of caches. One JSON line per engine and exit: both,
the block it leaves after, and the instructions and missed lines of an answer that leaves there.
"""

import json
import sys
from pathlib import Path

import torch
from marks import count

from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.stage_network import form_of_engine, open_graphs

NEVER, ALWAYS = 2.0, -float("inf")  # thresholds no score reaches, and every score does


def plain_counts(values: dict[str, int]) -> dict[str, int]:
    """All instructions as one number, and the lines that caches miss as they are."""
    lines = {name: value for name, value in values.items() if name.startswith("miss_")}
    return {"instructions": sum(value for name, value in values.items() if name not in lines)} | lines


def main(counts_path: str, path: str, *engines: str) -> None:
    torch.set_num_threads(1)
    bundle = load_bundle(path)
    manifest = bundle.manifest
    x = torch.randn(1, 3, *[manifest.preprocess.size] * 2, generator=torch.Generator().manual_seed(0))
    exits = len(manifest.exit_blocks)
    with Path(counts_path).open() as counts, torch.inference_mode(), torch.jit.optimized_execution(False):
        for engine in engines:
            graphs = form_of_engine(engine) is not None
            network = open_graphs(bundle, engine, threads=1) if graphs else bundle.load_network(engine)
            for k, block in enumerate(manifest.blocks):
                thresholds = [ALWAYS if j == k else NEVER for j in range(exits)]
                values = plain_counts(count(lambda: network(x, thresholds), counts))  # noqa: B023 - called at once
                print(
                    json.dumps({"engine": engine, "exit_index": k, "block_index": block, "counts": values}), flush=True
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
