"""Runs on the emulated core: counts an answer of networks in their training form, eagerly and in fp32.

    guest_eager.py COUNTS NAME:SIZE:DISTILLED...

COUNTS is the file benchmarks/arm/count.c writes to, with its model of caches. One JSON line per network.
"""

import json
import sys
from pathlib import Path

import torch
from guest_exits import plain_counts
from marks import count

from pi_dynn.models.registry import create_model


def main(counts_path: str, *networks: str) -> None:
    torch.set_num_threads(1)
    with Path(counts_path).open() as counts, torch.inference_mode():
        for network in networks:
            name, size, distilled = network.split(":")
            torch.manual_seed(0)
            model = create_model(name, num_classes=10, image_size=int(size), distilled=distilled == "1").eval()
            x = torch.randn(1, 3, int(size), int(size))
            values = plain_counts(count(lambda: model(x), counts))  # noqa: B023 - called at once
            print(json.dumps({"network": network, "counts": values}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
