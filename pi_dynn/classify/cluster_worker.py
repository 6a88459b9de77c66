"""The worker's side of a cluster: a plugin with the bundle and its Session, and the tasks, in plain data.

Torch is imported in the first task only: a plugin is set up in the worker's event loop, which must not block or the
scheduler takes the worker for dead.
"""

import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from distributed import Worker, WorkerPlugin, get_worker

from pi_dynn.errors import InputError, PiDynnError

if TYPE_CHECKING:
    from pi_dynn.runtime.session import Session

Fields = dict[str, Any]
Image = tuple[str, bytes | None]
"""The path of an image, and the file's content if it was sent along, else None."""


class BundlePlugin(WorkerPlugin):
    """A bundle on a worker, and its one Session there.

    It is sent as the file's bytes and plain values, also to workers that join later.
    """

    def __init__(self, data: bytes, source: str | None, options: Fields) -> None:
        """`data` is the content of the bundle file, `options` those of the Session."""
        self._data, self._source, self._options = data, source, options

    def setup(self, worker: Worker) -> None:
        """Set up on `worker`; the Session is made in the first task."""
        self._worker = worker.address
        self._session: Session | None = None
        self._lock = threading.Lock()  # the Session answers one task at a time, however many threads the worker has

    def run(self, answers: Callable[["Session"], list[Fields]]) -> Fields:
        """The result of `answers(session)` with this worker's address, or why it cannot use the bundle."""
        import torch

        from pi_dynn.runtime.bundle import Bundle
        from pi_dynn.runtime.session import Session

        with self._lock:
            try:
                if self._session is None:
                    bundle = Bundle(self._data, self._source)
                    self._session = Session(bundle, **self._options)
            except PiDynnError as error:
                return {"worker": self._worker, "refused": str(error)}
            session = self._session
            torch.set_num_threads(session.threads)  # OpenMP counts threads for each thread that calls it
            results = answers(session)
        return {"worker": self._worker, "engine": session.engine, "threads": session.threads, "results": results}


def classify_images(plugin: str, images: list[Image], settings: Fields) -> Fields:
    """The task of `classify`: for each image the fields of its Prediction, or the error."""

    def answers(session: "Session") -> list[Fields]:
        stream = session.answer_stream(_opened(images), **settings)
        return [
            _error(path, answer) if isinstance(answer, InputError) else {"prediction": answer.to_dict()}
            for path, answer in stream
        ]

    return _plugin(plugin).run(answers)


def classified_exits(plugin: str, images: list[Image], settings: Fields) -> Fields:
    """The task of `evaluate`: for each image the outputs of all exits in all its views, or the error.

    Each of "logits" (V, K, classes) and "scores" (V, K) is a data type, a shape and bytes.
    """
    from pi_dynn.data.prefetch import prefetch
    from pi_dynn.evaluate.outputs import exit_outputs

    def answers(session: "Session") -> list[Fields]:
        results = []
        for path, x in prefetch(_opened(images), session.preprocess):
            if isinstance(x, InputError):
                results.append(_error(path, x))
            else:
                arrays = zip(("logits", "scores"), exit_outputs(session, x, **settings), strict=True)
                results.append({name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays})
        return results

    return _plugin(plugin).run(answers)


def _plugin(name: str) -> BundlePlugin:
    return cast(BundlePlugin, get_worker().plugins[name])


def _opened(images: list[Image]) -> Iterator[tuple[str, str | BytesIO]]:
    """The path of each image, with its content if it was sent along, else the path again."""
    return ((path, path if data is None else BytesIO(data)) for path, data in images)


def _error(path: str, answer: InputError) -> Fields:
    """The error in place of an answer, naming the file."""
    if isinstance(answer.__cause__, FileNotFoundError):
        return {"error": f"{answer} on worker {get_worker().address}; --ship sends the files along"}
    return {"error": str(answer).replace("the image:", f"{path}:", 1)}
