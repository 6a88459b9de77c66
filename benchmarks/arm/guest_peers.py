"""Runs on the emulated core: counts the instructions of one answer of each file named on the command line.

    guest_peers.py COUNTS FILE...

ONNX graphs (.onnx) run on ONNX Runtime, programs (.pte) on ExecuTorch, with one thread. Prints the same JSON lines as
guest.py.
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


def executorch_answer(path: str) -> Callable[[], list]:
    """A function that runs the program in `path` on noise and returns its logits."""
    import torch
    from executorch.extension.pybindings import _portable_lib

    _portable_lib._unsafe_reset_threadpool(1)
    program = Path(path).read_bytes()
    module = _portable_lib._load_for_executorch_from_buffer(program)
    [method] = module.method_names()
    x = torch.randn(module.method_meta(method).input_tensor_meta(0).sizes())

    def answer(_kept_alive: bytes = program) -> list:  # ExecuTorch only points at them
        return module.run_method(method, [x])[0][0].tolist()

    return answer


def main(counts_path: str, *files: str) -> None:
    with Path(counts_path).open() as counts:
        for path in files:
            answer = (onnxruntime_answer if path.endswith(".onnx") else executorch_answer)(path)
            classes = count(answer, counts)
            print(json.dumps({"bundle": Path(path).stem, "logits": answer(), "instructions": classes}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
