"""Another bundle while a watch runs: loaded beside the running one, tested, and only then used."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pi_dynn.clock import Clock
from pi_dynn.data.preprocess import AnyImage
from pi_dynn.errors import BundleError, InputError
from pi_dynn.records import Prediction
from pi_dynn.runtime.session import Session

LOOK_S = 1.0  # between two looks at the file; one that changed in between is still being written


def check_session(session: Session, image: AnyImage) -> None:
    """Let a session answer an image at every exit; a blank one if its file is gone by now.

    Raises: BundleError unless all logits are finite, one for each class that its manifest declares, and so are scores.
    """
    classes = len(session.manifest.labels)
    try:
        x = session.preprocess.array(image)
    except InputError:
        x = np.zeros((3, session.preprocess.size, session.preprocess.size), np.float32)
    for k in range(session.exits + 1):
        # An image never leaves with a score that is no number.
        logits, left, score = session.answer(x[None], session.forced_thresholds(k))
        if left != k or logits.shape != (1, classes) or not np.isfinite([*logits[0], score]).all():
            raise BundleError(f"exit {k + 1} does not answer with {classes} finite numbers")


class SwappingSession:
    """A session that is replaced when the file of its bundle changes, or by `ask`; otherwise as the session itself.

    The new one is opened by `open_session` in another thread, and answers the newest picture there. If that fails the
    callback `say` reports it in one line, and the running session stays. So there are two sessions in memory meanwhile.

    Attributes: session (in use now), swaps, refused, on_swap (called with the new session, where `poll` is).
    """

    def __init__(
        self,
        session: Session,
        path: Path | None,
        open_session: Callable[[], Session],
        clock: Clock,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`path` is None for a bundle that comes with the package."""
        self.session, self.swaps, self.refused = session, 0, 0
        self._path, self._open, self._clock, self._say = path, open_session, clock, say
        self.on_swap: Callable[[Session], object] = lambda session: None
        self._used = self._seen = self._stamp()
        self._look_ns = clock.now_ns()
        self._asked = False
        self._image: AnyImage | None = None
        self._thread: threading.Thread | None = None
        self._result: Session | Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def classify(
        self,
        image: AnyImage,
        thresholds: list[float] | float | None = None,
        deadline_s: float | None = None,
        top: int = 1,
    ) -> Prediction:
        """The answer of the session in use. Raises: InputError."""
        self._image = image
        return self.session.classify(image, thresholds, deadline_s, top)

    def ask(self) -> None:
        """Load the bundle anew although its file may not have changed; safe in a signal handler."""
        self._asked = True

    def poll(self) -> None:
        """Look after the file, and take over a session that is ready. Call it between answers; it does not wait."""
        if self._thread is not None:
            if not self._thread.is_alive():
                self._thread = None
                self._take_over()
            return
        if self._image is None or self._clock.now_ns() < self._look_ns and not self._asked:
            return
        self._look_ns = self._clock.now_ns() + round(LOOK_S * 1e9)
        before, self._seen = self._seen, self._stamp()
        changed = self._seen is not None and self._seen != self._used and self._seen == before
        if changed or self._asked:
            self._used, self._asked = self._seen, False
            self._begin(self._image)

    def _begin(self, image: AnyImage) -> None:
        self._thread = threading.Thread(target=self._load, args=(image,), name="bundle", daemon=True)
        self._thread.start()

    def _stamp(self) -> tuple[int, int, int] | None:
        """What tells one content of the file from another."""
        try:
            status = None if self._path is None else self._path.stat()
        except OSError:  # between two files, as when it is moved away first
            return None
        return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)

    def _load(self, image: AnyImage) -> None:
        try:
            session = self._open()
            check_session(session, image)
            self._result = session
        except Exception as error:  # whatever is wrong with the file, the running session goes on
            self._result = error

    def _take_over(self) -> None:
        result, self._result = self._result, None
        if result is None or isinstance(result, Exception):
            self.refused += 1
            reason = " ".join(str(result).split()) or type(result).__name__
            self._say(f"{self._path or 'bundle'}: refused, the bundle in use stays ({reason})")
            return
        before, self.session = self.session.bundle, result
        self.swaps += 1
        classes = "the same" if result.manifest.labels == before.manifest.labels else "other"
        self._say(f"{self._path or 'bundle'}: {result.bundle.sha256[:8]} answers from now on, with {classes} classes")
        self.on_swap(result)
