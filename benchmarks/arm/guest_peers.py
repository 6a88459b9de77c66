"""Runs on the emulated core: counts the instructions of one answer of each ONNX graph named on the command line.

    guest_peers.py COUNTS FILE...

They run on ONNX Runtime with one thread. Prints the same JSON lines as guest.py.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from marks import count


def onnxruntime_answer(path: str) -> Callable[[], list]:
    """A function that runs the graph in `path` on noise and returns its logits."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    x = numpy.random.default_rng(0).standard_normal(shape, dtype=numpy.float32)
    return lambda: session.run(None, {"input": x})[0][0].tolist()


def main(counts_path: str, *files: str) -> None:
    with Path(counts_path).open() as counts:
        for path in files:
            answer = onnxruntime_answer(path)
            classes = count(answer, counts)
            print(json.dumps({"bundle": Path(path).stem, "logits": answer(), "instructions": classes}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
