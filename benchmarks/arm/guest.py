"""Runs on the emulated core: counts the instructions of one answer of each bundle named on the command line.

    guest.py COUNTS ENGINE BUNDLE...

COUNTS is the file benchmarks/arm/count.c writes to. One JSON line per bundle: its name, the logits of the last
answer to a picture of noise, and the instructions by class of an answer at full depth.
"""

import json
import sys
from pathlib import Path

import torch
from marks import count

from pi_dynn.runtime.bundle import load_bundle

NEVER = 2.0  # a threshold no score reaches


def main(counts_path: str, engine: str, *bundles: str) -> None:
    torch.set_num_threads(1)
    with Path(counts_path).open() as counts:
        for path in bundles:
            bundle = load_bundle(path)
            network = bundle.load_network(engine)
            size = bundle.manifest.preprocess.size
            x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
            thresholds = [NEVER] * len(bundle.manifest.exit_blocks)
            # As Session does; the profiling executor would recompile in the first runs.
            with torch.inference_mode(), torch.jit.optimized_execution(False):
                classes = count(lambda: network(x, thresholds), counts)  # noqa: B023 - called before the loop goes on
                logits = network(x, thresholds)[0][0].tolist()
            print(json.dumps({"bundle": Path(path).stem, "logits": logits, "instructions": classes}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
