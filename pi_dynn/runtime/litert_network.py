"""A bundle's network on LiteRT, which was TensorFlow Lite. Imports no torch."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from pi_dynn.errors import BundleError, EngineUnavailable, need_extra
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.gate_values import Gate
from pi_dynn.runtime.stage_network import Stage, StageNetwork

GATES_FILE = "gates.json"


def stage_file(k: int) -> str:
    """The name of the graph of stage `k` in a bundle."""
    return f"stage{k}.tflite"


def import_litert() -> ModuleType:
    """LiteRT's interpreter. Raises EngineUnavailable if it is not installed."""
    with need_extra("litert", "engine 'litert'", EngineUnavailable):
        from ai_edge_litert import interpreter
    module: ModuleType = interpreter
    return module


def open_litert(bundle: Bundle, threads: int) -> "LiteRtNetwork":
    """The network of a LiteRT bundle. Raises: EngineUnavailable without LiteRT, BundleError."""
    files = bundle.network_files()
    try:
        gates = [Gate.from_dict(values) for values in json.loads(files[GATES_FILE])]
        graphs = [files[stage_file(k)] for k in range(len(gates) + 1)]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the bundle lacks graphs or gates ({error}); export it again") from error
    if len(gates) != len(bundle.manifest.exit_blocks):
        raise BundleError(f"{len(gates)} gates do not fit {len(bundle.manifest.exit_blocks)} exits; export it again")
    return LiteRtNetwork(graphs, threads, gates)


class LiteRtNetwork(StageNetwork):
    """Stages whose graphs give (features, logits), the last one logits alone; gates are computed beside them.

    Features stay in int8 and with channels last, as one graph leaves them for the next. One thread at a time.
    """

    def __init__(self, graphs: list[bytes], threads: int, gates: list[Gate]) -> None:
        """Raises: EngineUnavailable without LiteRT, BundleError for a graph it cannot load."""
        self._gates: list[Gate | None] = [*gates, None]
        super().__init__(graphs, threads)

    def open_stages(self, graphs: list[bytes], threads: int) -> list[Stage]:
        """LiteRT's interpreter of each graph. Raises: EngineUnavailable, BundleError."""
        litert = import_litert()
        try:
            with _without_greeting():
                return [
                    _stage(litert.Interpreter(model_content=graph, num_threads=threads), gate)
                    for graph, gate in zip(graphs, self._gates, strict=True)
                ]
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"LiteRT cannot load the bundle ({str(error).splitlines()[0]})") from error


def _stage(interpreter: Any, gate: Gate | None) -> Stage:
    interpreter.allocate_tensors()
    (entry,) = (one["index"] for one in interpreter.get_input_details())
    outputs = [one["index"] for one in interpreter.get_output_details()]
    left, answer = outputs if gate is not None else (None, *outputs)

    def run(features: Any) -> Any:
        interpreter.set_tensor(entry, features)
        interpreter.invoke()
        logits = interpreter.get_tensor(answer)
        if gate is None:
            return None, logits, None
        return interpreter.get_tensor(left), logits, gate.value(logits[0])

    return run


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Keeps what LiteRT's libraries say about themselves off stderr, for which they have no option (2.3)."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
