"""The phase of a free-running converter: when to poll it, and when each conversion was completed.

A poll costs a bus transfer and a wake-up that disturb the measured work, so there should be one per conversion.
The datasheet gives the time of a conversion to a few percent only; it is learned from pairs of polls: a deliberately
early one that finds nothing, and the next one that finds the conversion.
"""

_POLLS_PER_CYCLE = 16
_LEARN_AFTER = 16  # conversions: a bound of a sixteenth of a cycle becomes one of half a percent
_TOLERANCE = 0.15  # of the oscillator; the datasheet's limit is 10 %


class ConversionPhase:
    """The phase and length of a converter's cycle. All times are nanoseconds of one clock.

    `due_ns` is when to poll next; `cycle_ns` the current estimate of the length of a cycle.
    """

    def __init__(self, nominal_ns: int) -> None:
        self._nominal_ns = nominal_ns
        self._poll_ns = nominal_ns // _POLLS_PER_CYCLE
        self._learned = False
        self.cycle_ns = nominal_ns

    def restart(self, start_ns: int) -> None:
        """Restart at `start_ns`, the beginning of a cycle; earlier polls no longer count."""
        self._done_ns = self._not_ready_ns = start_ns
        self._start_ns: int | None = start_ns  # an exactly known completion, from which cycles are counted
        self._count = 0
        self.due_ns = self._next_ns()

    def _early(self) -> bool:
        return not self._learned or self._start_ns is None or (self._count + 1) % _LEARN_AFTER == 0

    def _next_ns(self) -> int:
        expected_ns = self._done_ns + self.cycle_ns
        return expected_ns - self._poll_ns if self._early() else expected_ns + self._poll_ns // 4

    def not_ready(self, polled_ns: int) -> None:
        """The poll at `polled_ns` found nothing new."""
        self._not_ready_ns = polled_ns
        self.due_ns = max(polled_ns + self._poll_ns, self._next_ns())

    def ready(self, polled_ns: int, cleared_ns: int) -> int:
        """The poll at `polled_ns` found a conversion; the ready flag was cleared at `cleared_ns`.

        Returns the completion time of that conversion: a whole number of cycles after the one before, within the
        bounds given by the polls.
        """
        cycles = max(1, (polled_ns - self._done_ns) // self.cycle_ns)
        expected_ns = self._done_ns + cycles * self.cycle_ns
        earliest_ns = max(self._not_ready_ns, polled_ns - self.cycle_ns)
        self._done_ns = min(max(expected_ns, earliest_ns), polled_ns)
        self._learn(cycles, polled_ns)
        self._not_ready_ns = max(cleared_ns, polled_ns)
        self.due_ns = self._next_ns()
        return self._done_ns

    def _learn(self, cycles: int, polled_ns: int) -> None:
        bounded = polled_ns - self._not_ready_ns <= 2 * self._poll_ns
        on_time = polled_ns - self.due_ns <= self._poll_ns
        if self._start_ns is not None and cycles == 1:
            if not bounded and on_time and self._early():
                self._set_cycle(
                    self.cycle_ns - self._poll_ns
                )  # ready before the early poll: a faster chip than thought
            self._count += 1
            if bounded and self._count >= _LEARN_AFTER:
                self._set_cycle((self._done_ns - self._start_ns) // self._count)
                self._learned = True
        elif bounded:
            self._start_ns, self._count = self._done_ns, 0
        else:
            self._start_ns = None  # after a delay the number of cycles is uncertain, so count anew

    def _set_cycle(self, cycle_ns: int) -> None:
        low_ns, high_ns = (round(self._nominal_ns * (1 + sign * _TOLERANCE)) for sign in (-1, 1))
        self.cycle_ns = min(max(cycle_ns, low_ns), high_ns)
