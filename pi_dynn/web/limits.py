"""What a proxy would hold off: connections that send nothing, more of them than can be served, and guesses of a token.

Limits are counts and seconds; times are those of the event loop.
"""

import asyncio
import resource
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 10.0  # for a request's head to arrive
MOST_CONNECTIONS = 256
SPARE_DESCRIPTORS = 48  # for files, the meter and libraries
FAILURES, FAILURES_S = 10, 60.0  # wrong tokens from one address, and in which time


def most_connections(most: int = MOST_CONNECTIONS) -> int:
    """Connections that leave the process descriptors to work with, at most `most`."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if allowed == resource.RLIM_INFINITY else max(4, min(most, allowed - SPARE_DESCRIPTORS))


class Connections:
    """The open connections of a server. Of too many the one that has waited longest for a request's head is closed."""

    def __init__(self, most: int, header_s: float = HEADER_S) -> None:
        self.most, self.header_s = most, header_s
        self._waiting: OrderedDict[Any, asyncio.TimerHandle] = OrderedDict()
        self._open: set[Any] = set()

    def opened(self, transport: asyncio.Transport) -> None:
        """A connection was made. The oldest that waits is closed where there are too many; this one, if none waits."""
        self._open.add(transport)
        if len(self._open) > self.most:
            victim = next(iter(self._waiting), transport)
            self.closed(victim)
            victim.abort()
        if transport in self._open:
            self.waits(transport)

    def waits(self, transport: asyncio.Transport) -> None:
        """The head of a request has to arrive from now on."""
        if transport not in self._waiting and transport in self._open:
            loop = asyncio.get_running_loop()
            self._waiting[transport] = loop.call_later(self.header_s, transport.abort)

    def works(self, transport: asyncio.Transport) -> None:
        """The head is there."""
        timer = self._waiting.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def closed(self, transport: asyncio.Transport) -> None:
        """The connection is no more."""
        self.works(transport)
        self._open.discard(transport)


def limited_protocol(connections: Connections) -> type[H11Protocol]:
    """uvicorn's HTTP protocol with these limits on connections."""

    class LimitedProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            connections.opened(transport)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                connections.waits(self.transport)
            else:
                connections.works(self.transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.closed(self.transport)
            super().connection_lost(exc)

    return LimitedProtocol


class TokenFailures:
    """Wrong tokens by address: after too many in a short time no token of that address is looked at."""

    def __init__(self, now_s: Callable[[], float], most: int = FAILURES, within_s: float = FAILURES_S) -> None:
        self._now_s, self._most, self._within_s = now_s, most, within_s
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, address: str) -> None:
        """A wrong token came from `address`."""
        times = self._times.setdefault(address, deque(maxlen=self._most))
        times.append(self._now_s())
        self._times.move_to_end(address)
        while len(self._times) > MOST_CONNECTIONS:  # an address more costs no more memory
            self._times.popitem(last=False)

    def wait_s(self, address: str) -> float:
        """Seconds until a token of `address` is looked at again; 0 for now."""
        times = self._times.get(address)
        if times is None or len(times) < self._most:
            return 0.0
        return max(0.0, times[0] + self._within_s - self._now_s())
