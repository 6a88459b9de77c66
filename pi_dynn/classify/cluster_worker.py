"""The worker's side of a cluster: a bundle that came once, the Session made of it, and tasks in plain data.

Nothing here imports torch before the first task: a plugin is set up in the worker's event loop, which has to keep
telling the scheduler that the worker is alive.
"""

import threading
from collections.abc import Callable
from io import BytesIO

from distributed import WorkerPlugin, get_worker

from pi_dynn.errors import InputError, PiDynnError

Image = tuple[str, bytes | None]
"""The path of an image, and the file's content where it was shipped along."""


class BundlePlugin(WorkerPlugin):
    """A bundle on a worker, and its one Session there.

    What travels are the file's bytes and plain values; the scheduler hands them to workers that join later, too.
    """

    def __init__(self, data: bytes, source: str | None, engine: str, threads: int | None, exits: list[int] | None):
        self._data, self._source = data, source
        self._engine, self._threads, self._exits = engine, threads, exits

    def setup(self, worker) -> None:
        """Get ready on `worker`; the Session waits for the first task."""
        self._worker, self._session = worker.address, None
        self._lock = threading.Lock()  # the Session answers one task at a time, however many threads the worker has

    def run(self, answers: Callable) -> dict:
        """`answers(session)` with who gave them, or why this worker cannot give any."""
        import torch

        from pi_dynn.runtime.bundle import Bundle
        from pi_dynn.runtime.session import Session

        with self._lock:
            try:
                if self._session is None:
                    bundle = Bundle(self._data, self._source)
                    self._session = Session(bundle, self._threads, self._engine, exits=self._exits)
            except PiDynnError as error:
                return {"worker": self._worker, "refused": str(error)}
            session = self._session
            torch.set_num_threads(session.threads)  # OpenMP counts threads for each thread that calls it
            results = answers(session)
        return {"worker": self._worker, "engine": session.engine, "threads": session.threads, "results": results}


def classify_images(plugin: str, images: list[Image], settings: dict) -> dict:
    """The task of `classify`: for each image the fields of its Prediction, or the error."""

    def answers(session) -> list[dict]:
        stream = session.answer_stream(images, _loader(session.preprocess), **settings)
        return [_error(answer) or {"prediction": answer.to_dict()} for _, answer in stream]

    return get_worker().plugins[plugin].run(answers)


def exit_outputs(plugin: str, images: list[Image], settings: dict) -> dict:
    """The task of `evaluate`: for each image the outputs of all exits in all its views, or the error.

    Each of "logits" (V, K, classes) and "scores" (V, K) is a data type, a shape and bytes.
    """
    from pi_dynn.data.prefetch import prefetch

    def answers(session) -> list[dict]:
        results = []
        for _, x in prefetch(images, _loader(session.preprocess)):
            if isinstance(x, InputError):
                results.append(_error(x))
            else:
                arrays = zip(("logits", "scores"), session.exit_outputs(x, **settings), strict=True)
                results.append({name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays})
        return results

    return get_worker().plugins[plugin].run(answers)


def _loader(preprocess) -> Callable:
    """From an image to the network's input; runs in a thread that does not know its worker."""
    worker = get_worker().address

    def load(image: Image):
        path, data = image
        try:
            return preprocess.load(path if data is None else BytesIO(data))
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise InputError(f"{error} on worker {worker}; --ship sends the files along") from error
            raise InputError(str(error).replace("the image:", f"{path}:", 1)) from error

    return load


def _error(answer) -> dict | None:
    return {"error": str(answer)} if isinstance(answer, InputError) else None
