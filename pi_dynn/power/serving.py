"""Serves the samples of a meter to other boards, for `--meter tcp://...` there; see `remote`."""

import json
import queue
import socket
import socketserver
import threading
from contextlib import suppress
from typing import Any

from pi_dynn.clock import Clock
from pi_dynn.errors import PowerError
from pi_dynn.power.meter import EnergyMeter, EnergyReading, PowerSample

_SAMPLES_KEPT = 10_000  # for a client that does not read them; then it is dropped
_LONGEST_LINE = 200
_MOST_CLIENTS = 8


class MeterServer(socketserver.ThreadingTCPServer):
    """A server of one meter's samples on `address`; it samples while it has clients. A context manager."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], meter: EnergyMeter, clock: Clock) -> None:
        self.meter, self.clock = meter, clock
        self.failed: str | None = None
        self._clients: set[queue.Queue[str]] = set()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="served meter", daemon=True)
        self._thread.start()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Client)  # closes itself if the address is taken

    def join_clients(self, waiting: "queue.Queue[str]") -> bool:
        """Add a client's queue; False if there are too many."""
        with self._lock:
            if len(self._clients) >= _MOST_CLIENTS:
                return False
            self._clients.add(waiting)
            return True

    def leave_clients(self, waiting: "queue.Queue[str]") -> None:
        """Remove a client's queue."""
        with self._lock:
            self._clients.discard(waiting)

    def server_close(self) -> None:
        self._ended.set()
        self._thread.join(2.0)
        super().server_close()

    def _sample(self) -> None:
        while not self._ended.is_set():
            try:
                sample = self.meter.read()
            except PowerError as error:
                self.failed = str(error)
                self._send({"error": self.failed})
                return
            if sample is not None:
                self._send(_values(sample))
            due_ns = self.meter.due_ns()
            wait_s = self.meter.info.nominal_period_s / 4 if due_ns is None else (due_ns - self.clock.now_ns()) * 1e-9
            self._ended.wait(max(0.0, wait_s))

    def _send(self, values: dict[str, Any]) -> None:
        line = json.dumps(values)
        with self._lock:
            for waiting in list(self._clients):
                try:
                    waiting.put_nowait(line)
                except queue.Full:
                    self._clients.discard(waiting)


def _values(sample: PowerSample | EnergyReading) -> dict[str, Any]:
    values: dict[str, Any] = {"t_ns": sample.t_ns, "flags": int(sample.flags)}
    if isinstance(sample, EnergyReading):
        return values | {"energy_j": sample.energy_j}
    return values | {"power_w": sample.power_w, "voltage_v": sample.voltage_v, "current_a": sample.current_a}


class _Client(socketserver.StreamRequestHandler):
    """One connection: samples go out in a thread of its own, questions for the clock are answered as they come."""

    server: MeterServer
    disable_nagle_algorithm = True

    def handle(self) -> None:
        waiting: queue.Queue[str] = queue.Queue(_SAMPLES_KEPT)
        self._sending, gone = threading.Lock(), threading.Event()
        if not self.server.join_clients(waiting):
            self._write({"error": f"{_MOST_CLIENTS} others read this meter already"})
            return
        self._write({"meter": self.server.meter.info.to_dict()})
        if self.server.failed is not None:
            self._write({"error": self.server.failed})
        sender = threading.Thread(target=self._forward, args=(waiting, gone), daemon=True)
        sender.start()
        try:
            while line := self.rfile.readline(_LONGEST_LINE):
                asked_ns = int(json.loads(line)["clock"])
                self._write({"clock": asked_ns, "here": self.server.clock.now_ns()})
        except (OSError, ValueError, KeyError, TypeError):
            pass  # it has gone, or speaks something else
        finally:
            gone.set()
            self.server.leave_clients(waiting)

    def _forward(self, waiting: "queue.Queue[str]", gone: threading.Event) -> None:
        while not gone.is_set():
            try:
                line = waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            try:
                self._send_line(line)
            except OSError:
                return

    def _write(self, values: dict[str, Any]) -> None:
        with suppress(OSError):  # it has gone
            self._send_line(json.dumps(values))

    def _send_line(self, line: str) -> None:
        with self._sending:
            self.wfile.write(line.encode() + b"\n")
