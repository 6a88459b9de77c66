"""Answers from the workers of a Dask scheduler, in the order of the images.

A bounded number of tasks is in flight, a few for each thread of the workers. The scheduler moves the tasks of a lost
worker to others, and only one result of each is used. A task that fails is retried as single images, so that only an
image which makes its worker fail stays without an answer.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import dask
import numpy as np
from distributed import CancelledError, Client, Future, as_completed
from numpy.typing import NDArray

from pi_dynn.classify.cluster_worker import BundlePlugin, Fields, Image, classified_exits, classify_images
from pi_dynn.data.decode import ImageBytes, is_url
from pi_dynn.data.folders import ImageFolder
from pi_dynn.errors import ClusterError, InputError
from pi_dynn.evaluate.outputs import Alter, Outputs
from pi_dynn.records import Prediction
from pi_dynn.runtime.bundle import Bundle
from pi_dynn.runtime.thresholds import enabled_exits, resolve_thresholds

Key = TypeVar("Key")
Sendable = str | Path | ImageBytes | Image | InputError
Task = Callable[[str, list[Image], Fields], Fields]
"""A function run on a worker: from the name of its plugin, images and settings to the results or a refusal."""
SHIPPED_BYTES = 4 * 2**20  # of image data in a task: tasks in flight are in the scheduler's memory


@dataclass(frozen=True)
class ClusterSettings:
    """Scheduling: images per task, tasks in flight per thread, whether the files are sent with them."""

    images_per_task: int = 8
    tasks_ahead: int = 4
    ship: bool = False
    wait_s: float = 30.0


@dataclass
class _Task:
    """Some images in their order, or the errors of those that cannot be sent."""

    keys: list[Any] = field(default_factory=list)
    images: list[Image | InputError] = field(default_factory=list)

    @property
    def sent(self) -> list[Image]:
        return [image for image in self.images if not isinstance(image, InputError)]

    def singles(self) -> "list[_Task]":
        return [_Task([key], [image]) for key, image in zip(self.keys, self.images, strict=True)]


class _Flight:
    """Submitted tasks in order, and the answers that have arrived."""

    def __init__(self, client: Client, call: Callable[[_Task], tuple[Any, ...]]) -> None:
        self._client, self._call = client, call
        self._waiting: deque[tuple[_Task, Future[Fields] | None]] = deque()
        self._answers: dict[Any, Fields | Exception] = {}
        self._completed = as_completed(loop=client.loop, with_results=True, raise_errors=False)

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, task: _Task) -> None:
        """Submit a task, unless it has no image to send."""
        self._waiting.append((task, self._send(task)))

    def first(self) -> tuple[_Task, Fields | Exception]:
        """The task that was submitted first, with its answer or its error. Raises: CancelledError."""
        task, future = self._waiting.popleft()
        return task, self._answer(future)

    def alone(self, task: _Task) -> Fields | Exception:
        """The answer to a task while no other is in flight. Raises: CancelledError.

        When a worker dies, the scheduler blames all its tasks: only a task that ran alone is surely the cause.
        """
        for _, future in self._waiting:
            self._await(future)
        return self._answer(self._send(task))

    def cancel(self) -> None:
        """Cancel the tasks without an answer."""
        if self._client.status == "running":
            self._client.cancel([future for _, future in self._waiting if future is not None])

    def _send(self, task: _Task) -> Future[Fields] | None:
        if not task.sent:
            return None
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):  # photographs are large
            future = self._client.submit(*self._call(task), pure=False)
        self._completed.add(future)
        return future

    def _await(self, future: Future[Fields] | None) -> None:
        while future is not None and future.key not in self._answers:
            finished, result = next(self._completed)
            if isinstance(result, CancelledError):
                raise result
            self._answers[finished.key] = result[1] if finished.status == "error" else result

    def _answer(self, future: Future[Fields] | None) -> Fields | Exception:
        self._await(future)
        return {"results": []} if future is None else self._answers.pop(future.key)


class ClusterSession:
    """The methods of a Session that `classify` and `evaluate` need, run on a cluster's workers; a context manager.

    The bundle is sent to every worker once, also to those that join later. `engine` and `threads` are those of the
    workers that have answered so far.

    Raises: ClusterError without a scheduler or a worker; InputError for exits that the bundle lacks.
    """

    def __init__(
        self,
        address: str,
        bundle: Bundle,
        engine: str = "auto",
        threads: int | None = None,
        exits: Sequence[int] | None = None,
        settings: ClusterSettings | None = None,
        accept_all: bool = False,
    ) -> None:
        self.bundle, self.manifest = bundle, bundle.manifest
        self.enabled = enabled_exits(self.manifest, exits)
        self.exits = len(self.enabled)
        self.workers: dict[str, tuple[str, int]] = {}
        self._address, self._settings = address, settings or ClusterSettings()
        blocks = None if exits is None else list(exits)
        options = {"engine": engine, "threads": threads, "exits": blocks, "accept_all": accept_all}
        self._plugin = BundlePlugin(bundle.data, bundle.source, options)
        self._name = f"pi-dynn-{bundle.sha256[:12]}-{uuid.uuid4().hex[:12]}"  # unique, for other runs

    def __enter__(self) -> "ClusterSession":
        wait_s = self._settings.wait_s
        try:
            self._client = Client(self._address, timeout=wait_s, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(f"no scheduler at {self._address} ({error}): start `dask scheduler` there") from error
        try:
            self._client.wait_for_workers(1, timeout=wait_s)
            self._client.register_plugin(self._plugin, self._name)
        except TimeoutError as error:
            self._client.close()
            raise ClusterError(
                f"the scheduler at {self._address} has no worker: start `dask worker {self._address}` on each"
            ) from error
        except Exception as error:  # any error of a worker without this pi_dynn
            self._client.close()
            raise ClusterError(f"a worker cannot take the bundle ({error}): install this pi_dynn on all") from error
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a lost scheduler has nothing to unregister
            if self._client.status == "running":
                self._client.unregister_worker_plugin(self._name)
        self._client.close()

    @property
    def engine(self) -> str:
        """The engines of the workers."""
        return ", ".join(sorted({engine for engine, _ in self.workers.values()})) or "none"

    @property
    def threads(self) -> int:
        """The threads of all workers' networks."""
        return sum(threads for _, threads in self.workers.values())

    def resolve_thresholds(self, thresholds: Sequence[float] | float | None) -> list[float]:
        """As `Session.resolve_thresholds`."""
        return resolve_thresholds(self.manifest, self.enabled, thresholds)

    def answer_stream(
        self,
        images: Iterable[tuple[Key, str | Path | ImageBytes | InputError]],
        batch_size: int = 1,
        thresholds: Sequence[float] | float | None = None,
        deadline_s: float | None = None,
        top: int = 1,
    ) -> Iterator[tuple[Key, Prediction | InputError]]:
        """The key of each image with its answer or the InputError in its place; order is kept.

        Raises: ClusterError if the scheduler is lost, or a worker cannot use the bundle.
        """
        settings = {
            "batch_size": batch_size,
            "thresholds": self.resolve_thresholds(thresholds),
            "deadline_s": deadline_s,
            "top": top,
        }
        return (
            (key, result if isinstance(result, InputError) else Prediction.from_dict(result["prediction"]))
            for key, result in self._results(images, classify_images, settings, batch_size)
        )

    def stream_outputs(
        self, data: ImageFolder, alter: Alter | None = None, all_views: bool = False
    ) -> Iterator[tuple[int, Outputs | InputError]]:
        """The number of each image with the outputs of all exits or its error, in the order of `data`.

        Raises: ClusterError, as `answer_stream`; InputError for an `alter`, because code is not sent.
        """
        if alter is not None:
            raise InputError("altered images are made on this machine: leave the cluster out")
        images = ((i, _path_or_content(data, i)) for i in range(len(data)))
        for i, result in self._results(images, classified_exits, {"all_views": all_views}):
            if isinstance(result, InputError):
                yield i, result
            else:
                yield i, (_array(result["logits"]), _array(result["scores"]))

    def _results(
        self,
        images: Iterable[tuple[Key, Sendable]],
        function: Task,
        settings: Fields,
        at_least: int = 1,
    ) -> Iterator[tuple[Key, Fields | InputError]]:
        tasks = self._tasks(images, max(self._settings.images_per_task, at_least))
        for task, results in self._in_order(tasks, function, settings):
            for key, image in zip(task.keys, task.images, strict=True):
                result = image if isinstance(image, InputError) else next(results)
                if not isinstance(result, InputError) and "error" in result:
                    result = InputError(result["error"])
                yield key, result

    def _tasks(self, images: Iterable[tuple[Key, Sendable]], size: int) -> Iterator[_Task]:
        task, task_bytes = _Task(), 0
        for key, path in images:
            image = path if isinstance(path, InputError) else self._image(path)
            task_bytes += 0 if isinstance(image, InputError) else len(image[1] or b"")
            task.keys.append(key)
            task.images.append(image)
            if len(task.keys) == size or task_bytes >= SHIPPED_BYTES:
                yield task
                task, task_bytes = _Task(), 0
        if task.keys:
            yield task

    def _image(self, path: str | Path | ImageBytes | Image) -> Image | InputError:
        if isinstance(path, tuple):
            return path
        if isinstance(path, ImageBytes):
            return path.name, path.getvalue()
        if isinstance(path, str) and is_url(path):
            return path, None  # the worker fetches it
        if not self._settings.ship:
            return str(Path(path).absolute()), None
        try:
            return str(path), Path(path).read_bytes()
        except OSError as error:
            return InputError(f"{path}: cannot be read ({error.strerror})")

    def _in_order(
        self, tasks: Iterable[_Task], function: Task, settings: Fields
    ) -> Iterator[tuple[_Task, Iterator[Fields]]]:
        """Tasks with their results, in order; a task that failed is divided into single images."""
        flight = _Flight(self._client, lambda task: (function, self._name, task.sent, settings))
        try:
            room = submitted = 0
            for task in tasks:
                if submitted >= room:  # checked again after a while, because workers come and go
                    room, submitted = self._room(), 0
                flight.submit(task)
                submitted += 1
                while len(flight) >= room:
                    yield from self._landed(flight)
            while len(flight):
                yield from self._landed(flight)
        except ClusterError:
            raise
        except (CancelledError, OSError) as error:  # OSError if a call finds the closed connection first
            raise self._lost() from error
        finally:
            with suppress(OSError):
                flight.cancel()

    def _landed(self, flight: "_Flight") -> Iterator[tuple[_Task, Iterator[Fields]]]:
        """The first task in flight with its results, or its images one by one after a failure."""
        task, answer = flight.first()
        if not isinstance(answer, Exception):
            yield task, self._checked(answer)
            return
        for single in task.singles():
            answer = flight.alone(single)
            if isinstance(answer, Exception):
                answer = {"results": [{"error": f"{single.sent[0][0]}: no worker could answer ({answer})"}]}
            yield single, self._checked(answer)

    def _room(self) -> int:
        """The number of tasks that may be in flight now. Raises: ClusterError if the scheduler is lost."""
        try:
            threads = sum(self._client.nthreads().values())
        except OSError as error:
            raise self._lost() from error
        return self._settings.tasks_ahead * max(1, int(threads))

    def _lost(self) -> ClusterError:
        return ClusterError(f"the scheduler at {self._address} is lost: start it again, then this")

    def _checked(self, answer: Fields) -> Iterator[Fields]:
        """The results of a task. Raises: ClusterError if the worker could not use the bundle."""
        if "refused" in answer:
            raise ClusterError(f"worker {answer['worker']} cannot answer: {answer['refused']}")
        if "worker" in answer:
            self.workers[answer["worker"]] = answer["engine"], answer["threads"]
        return iter(answer["results"])


def _path_or_content(data: ImageFolder, i: int) -> Path | Image:
    """The path of an image; for one in a larger file, such as CIFAR's, its name and its content as PNG."""
    source = data.source(i)
    if isinstance(source, Path):
        return source
    content = BytesIO()
    source.save(content, "PNG")
    return str(data.paths[i]), content.getvalue()


def _array(packed: tuple[str, Sequence[int], bytes]) -> NDArray[np.float64]:
    dtype, shape, content = packed
    return np.frombuffer(content, dtype).reshape(shape)
