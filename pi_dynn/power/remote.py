"""The meter `tcp://HOST:PORT`: the meter of another board, over the network. The work then runs undisturbed here.

The other board runs `pi-dynn meter --serve`. It sends a line of JSON that describes its meter, then one for every
sample; it answers the question for its clock at once. Of some exchanges of clocks the fastest gives the shift between
the two, and half of its round trip is the largest error; a thread asks again every few seconds, because clocks drift.
"""

import json
import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pi_dynn.clock import Clock
from pi_dynn.errors import InputError, MeterBusError, MeterNotFound, PowerError
from pi_dynn.power.meter import EnergyMeter, EnergyReading, MeterInfo, PowerSample, SampleFlags

_TIMEOUT_S = 5.0
_FIRST_EXCHANGES = 8
_EXCHANGE_EVERY_S = 2.0
_EXCHANGES_KEPT = 16
_LONGEST_LINE = 10_000
MAX_CLOCK_ERROR_S = 0.02


class Remote(EnergyMeter):
    """The meter of another board.

    `clock_error_s` is the largest error of the times of its samples.
    """

    def __init__(self, connection: socket.socket, clock: Clock, name: str) -> None:
        self._connection, self._clock, self._name = connection, clock, name
        self._lines = connection.makefile("rb")
        self._samples: deque[PowerSample | EnergyReading] = deque()
        self._exchanges: deque[tuple[int, int]] = deque(maxlen=_EXCHANGES_KEPT)  # round trip, shift: nanoseconds
        self._failed: str | None = None
        self._closing, self._known = threading.Event(), threading.Event()
        self.retries = 0
        try:
            self.info = MeterInfo.from_dict(self._line()["meter"])
        except (KeyError, TypeError, ValueError, PowerError, InputError) as error:
            self.close()
            raise MeterNotFound(f"{name}: no meter of pi_dynn answers there: pi-dynn meter --serve does") from error
        self._reader = threading.Thread(target=self._read_lines, name="remote meter", daemon=True)
        self._asker = threading.Thread(target=self._ask, name="remote clock", daemon=True)
        self._reader.start()
        self._asker.start()
        if not self._known.wait(_TIMEOUT_S):
            self.close()
            raise MeterBusError(f"{name}: gives no clock: {self._failed or 'is it another version?'}")
        note = f"measured by {self.info.name} at {name}; clocks known to {self.clock_error_s * 1e3:.2f} ms"
        self.info = replace(self.info, name=f"{self.info.name} at {name}", notes=(*self.info.notes, note))
        if self.clock_error_s > MAX_CLOCK_ERROR_S:
            self.close()
            raise MeterBusError(
                f"{name}: its clock is known to {self.clock_error_s * 1e3:.0f} ms only (limit "
                f"{MAX_CLOCK_ERROR_S * 1e3:.0f} ms): use a cable instead of wireless"
            )

    @property
    def clock_error_s(self) -> float:
        """Half of the fastest round trip so far."""
        return min(self._exchanges)[0] / 2e9

    def read(self) -> PowerSample | EnergyReading | None:
        """The next sample, its time on this board's clock.

        Raises: MeterBusError once the connection has ended.
        """
        try:
            return self._samples.popleft()
        except IndexError:
            if self._failed is not None:
                raise MeterBusError(f"{self._name}: {self._failed}") from None
            return None

    def due_ns(self) -> int:
        waiting_s = 0.0 if self._samples else self.info.nominal_period_s / 2
        return self._clock.now_ns() + round(waiting_s * 1e9)

    def close(self) -> None:
        if not self._closing.is_set():
            self._closing.set()
            with suppress(OSError):  # the other side has closed it
                self._connection.shutdown(socket.SHUT_RDWR)
            self._lines.close()
            self._connection.close()

    def _line(self) -> dict[str, Any]:
        try:
            line = self._lines.readline(_LONGEST_LINE)
            values = json.loads(line)
        except (OSError, ValueError) as error:
            raise MeterBusError(f"{self._name}: {error}") from error
        return values if isinstance(values, dict) else {}

    def _read_lines(self) -> None:
        try:
            while not self._closing.is_set():
                values = self._line()
                if "clock" in values:
                    self._exchanged(int(values["clock"]), int(values["here"]))
                elif "error" in values:
                    self._failed = str(values["error"])
                    return
                elif self._exchanges and "t_ns" in values:
                    self._samples.append(self._sample(values))
        except (MeterBusError, TypeError, ValueError, KeyError) as error:
            self._failed = f"the connection ended ({error})"

    def _exchanged(self, asked_ns: int, there_ns: int) -> None:
        now_ns = self._clock.now_ns()
        self._exchanges.append((now_ns - asked_ns, there_ns - (asked_ns + now_ns) // 2))
        if len(self._exchanges) >= _FIRST_EXCHANGES:
            self._known.set()

    def _sample(self, values: dict[str, Any]) -> PowerSample | EnergyReading:
        t_ns = int(values["t_ns"]) - min(self._exchanges)[1]
        flags = SampleFlags(int(values.get("flags", 0)))
        if self.info.kind == "counter":
            return EnergyReading(t_ns, float(values["energy_j"]), flags)
        return PowerSample(t_ns, float(values["power_w"]), values.get("voltage_v"), values.get("current_a"), flags)

    def _ask(self) -> None:
        asked = 0
        try:
            while not self._closing.is_set():
                self._connection.sendall(json.dumps({"clock": self._clock.now_ns()}).encode() + b"\n")
                asked += 1
                self._closing.wait(_EXCHANGE_EVERY_S if asked >= _FIRST_EXCHANGES else 0.02)
        except OSError:
            return  # the reader says what happened


def open_remote(*, clock: Clock, root: Path = Path("/"), address: str) -> Remote:
    """The meter that the board at `address`, HOST:PORT, serves.

    Raises: InputError for an address that is none, MeterNotFound if nobody serves a meter there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"tcp://{address} is no address of a meter: give tcp://HOST:PORT")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S)
    except OSError as error:
        raise MeterNotFound(f"tcp://{address}: {error}; run pi-dynn meter --serve there") from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(None)
    return Remote(connection, clock, f"tcp://{address}")
