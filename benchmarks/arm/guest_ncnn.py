"""Runs on the emulated core: counts an answer of ncnn networks with random weights, one thread.

    guest_ncnn.py COUNTS NAME=FILE.param:PIXELS...

Prints a JSON line for each: its name, the instructions, and the lines the caches miss.
"""

import json
import sys
from pathlib import Path

import ncnn
import numpy as np
from guest_exits import plain_counts
from marks import count


def main(counts_path: str, *networks: str) -> None:
    with Path(counts_path).open() as counts:
        for text in networks:
            name, _, place = text.partition("=")
            path, _, pixels = place.rpartition(":")
            net = ncnn.Net()
            net.opt.num_threads = 1
            net.load_param(path)
            net.load_model(ncnn.DataReaderFromEmpty())
            x = np.full((3, int(pixels), int(pixels)), 0.01, np.float32)

            def answer(net: ncnn.Net = net, x: np.ndarray = x) -> object:
                extractor = net.create_extractor()
                extractor.input("in0", ncnn.Mat(x))
                return extractor.extract("out0")[1]

            print(json.dumps({"name": name, "counts": plain_counts(count(answer, counts))}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
