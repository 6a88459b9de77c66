"""Answers on demand: one worker, one bounded queue, and counts for whoever watches."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from io import BytesIO

import torch

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError, PiDynnError
from pi_dynn.power.live import LivePower
from pi_dynn.records import Prediction, Record
from pi_dynn.runtime.session import Session


class Busy(PiDynnError):
    """The queue is full; `retry_s` is when there should be room again."""

    def __init__(self, waiting: int, retry_s: float) -> None:
        super().__init__(f"{waiting} images are waiting already: ask again in {retry_s:.0f} s")
        self.retry_s = retry_s


@dataclass(frozen=True)
class LiveAnswer(Record):
    """One answer as it happens. `gross_j` is what the board drew meanwhile, None without a meter.

    `latency_s` of the prediction is the network's, `elapsed_s` that of decoding too, `waited_s` the queue's.
    `meter_label` is MEASURED, ESTIMATED or SIMULATED.
    """

    number: int
    prediction: Prediction
    elapsed_s: float
    waited_s: float
    gross_j: float | None
    power_w: float | None
    meter: str | None
    meter_label: str | None


class LiveClassifier:
    """Classifies encoded images one after the other in a thread of its own; a context manager.

    `watchers` are called with every LiveAnswer, in that thread.
    """

    def __init__(self, session: Session, clock: Clock, power: LivePower | None = None, room: int = 8) -> None:
        """`room` images may wait. Raises: InputError for no room at all."""
        if room < 1:
            raise InputError(f"room for {room} images: give 1 or more")
        self.session, self.power = session, power
        self.watchers: list[Callable[[LiveAnswer], object]] = []
        self.answered = self.failed = self.refused = 0
        self._clock = clock
        self._queue: queue.Queue[tuple[bytes, int, Future[LiveAnswer]] | None] = queue.Queue(room)
        self._thread = threading.Thread(target=self._run, name="classifier", daemon=True)
        self._mean_s = 0.0
        self._closing = False

    def __enter__(self) -> "LiveClassifier":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer what is waiting, then end."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.qsize()

    def watch(self, watcher: Callable[[LiveAnswer], object]) -> Callable[[], None]:
        """Call `watcher` with every answer from now on; the function returned ends that."""
        self.watchers.append(watcher)
        return lambda: self.watchers.remove(watcher)

    def submit(self, image: bytes) -> "Future[LiveAnswer]":
        """The answer to come, or the InputError why there is none. Raises: Busy if no more may wait."""
        future: Future[LiveAnswer] = Future()
        try:
            if self._closing:
                raise queue.Full
            self._queue.put_nowait((image, self._clock.now_ns(), future))
        except queue.Full:
            self.refused += 1
            raise Busy(self.waiting, max(1.0, self.waiting * self._mean_s)) from None
        return future

    def _run(self) -> None:
        torch.set_num_threads(self.session.threads)  # OpenMP counts threads for each thread that calls it
        while (task := self._queue.get()) is not None:
            image, asked_ns, future = task
            if not future.set_running_or_notify_cancel():
                continue  # whoever asked has left
            try:
                answer = self._answer(image, asked_ns)
            except PiDynnError as error:
                self.failed += 1
                future.set_exception(error)
            else:
                for watcher in list(self.watchers):  # first, so that who has an answer finds it counted
                    watcher(answer)
                future.set_result(answer)

    def _answer(self, image: bytes, asked_ns: int) -> LiveAnswer:
        start_ns = self._clock.now_ns()
        prediction = self.session.classify(BytesIO(image), top=3)
        stop_ns = self._clock.now_ns()
        elapsed_s = (stop_ns - start_ns) * 1e-9
        self._mean_s += (elapsed_s - self._mean_s) / 8 if self.answered else elapsed_s
        self.answered += 1
        power = self.power
        return LiveAnswer(
            number=self.answered,
            prediction=prediction,
            elapsed_s=elapsed_s,
            waited_s=(start_ns - asked_ns) * 1e-9,
            gross_j=None if power is None else power.energy_j(start_ns, stop_ns),
            power_w=None if power is None else power.power_w,
            meter=None if power is None else power.info.name,
            meter_label=None if power is None else power.info.label,
        )
