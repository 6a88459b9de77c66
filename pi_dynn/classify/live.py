"""Answers on demand: one worker thread, one bounded queue, and callbacks for all answers."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from io import BytesIO

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError, PiDynnError
from pi_dynn.power.live import LivePower
from pi_dynn.records import Prediction, Record
from pi_dynn.runtime.session import Session


class Busy(PiDynnError):
    """The queue is full; retry after `retry_s` seconds."""

    def __init__(self, waiting: int, retry_s: float) -> None:
        super().__init__(f"{waiting} images are waiting already: ask again in {retry_s:.0f} s")
        self.retry_s = retry_s


@dataclass(frozen=True)
class LiveAnswer(Record):
    """One answer. `gross_j` is the energy of the whole board meanwhile, None without a meter.

    `latency_s` of the prediction is the network's, `elapsed_s` includes decoding, `waited_s` is the time in the queue.
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
    """Classifies encoded images one after the other in its own thread; a context manager.

    `watchers` are callbacks for every LiveAnswer, called in that thread.
    """

    def __init__(self, session: Session, clock: Clock, power: LivePower | None = None, room: int = 8) -> None:
        """`room` is the length of the queue. Raises: InputError if it is below 1."""
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
        """Answer the images in the queue, then end."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.qsize()

    def watch(self, watcher: Callable[[LiveAnswer], object]) -> Callable[[], None]:
        """Add a callback for every answer from now on; returns the function that removes it."""
        self.watchers.append(watcher)
        return lambda: self.watchers.remove(watcher)

    def submit(self, image: bytes) -> "Future[LiveAnswer]":
        """The future of the answer, or of an InputError. Raises: Busy if the queue is full."""
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
        self.session.set_threads()
        while (task := self._queue.get()) is not None:
            image, submit_ns, future = task
            if not future.set_running_or_notify_cancel():
                continue  # cancelled by the caller
            try:
                answer = self._answer(image, submit_ns)
            except PiDynnError as error:
                self.failed += 1
                future.set_exception(error)
            else:
                for watcher in list(self.watchers):  # before the result, so that counters include it
                    watcher(answer)
                future.set_result(answer)

    def _answer(self, image: bytes, submit_ns: int) -> LiveAnswer:
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
            waited_s=(start_ns - submit_ns) * 1e-9,
            gross_j=None if power is None else power.energy_j(start_ns, stop_ns),
            power_w=None if power is None else power.power_w,
            meter=None if power is None else power.info.name,
            meter_label=None if power is None else power.info.label,
        )
