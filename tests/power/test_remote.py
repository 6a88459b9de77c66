"""A meter on another board: real sockets, and a clock that is ahead by an hour."""

import json
import re
import socket
import threading
from dataclasses import replace

import pytest

from pi_dynn.clock import PerfClock
from pi_dynn.errors import InputError, MeterNotFound
from pi_dynn.power import EnergyMeter, EnergyReading, Sampler, open_meter
from pi_dynn.power.serving import MeterServer

AHEAD_NS = 3600 * 10**9


class ClockOfTheOtherBoard(PerfClock):
    def now_ns(self) -> int:
        return super().now_ns() + AHEAD_NS


@pytest.fixture
def serve():
    """Serve a meter in a thread; returns the server."""
    servers = []

    def start(meter, clock):
        server = MeterServer(("127.0.0.1", 0), meter, clock)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def served(serve):
    """A simulated INA219 on the other board, and its address."""
    clock = ClockOfTheOtherBoard()
    meter = open_meter("fake", clock=clock)
    server = serve(meter, clock)
    return meter, f"tcp://127.0.0.1:{server.server_address[1]}"


def test_samples_come_with_the_times_of_this_clock(served):
    _, address = served
    clock = PerfClock()
    with open_meter(address, clock=clock) as meter, Sampler(meter, clock) as sampler:
        before_ns = clock.now_ns()
        clock.sleep(1.0)
        after_ns = clock.now_ns()
    trace = sampler.trace()
    assert trace.error is None
    assert len(trace.t_ns) > 100
    assert before_ns - 10**9 < trace.t_ns[0] < trace.t_ns[-1] < after_ns + 10**8
    assert trace.power_w.mean() == pytest.approx(2.18, rel=0.01)
    assert meter.clock_error_s < 0.02
    assert (meter.info.label, meter.info.measured, meter.info.shunt_ohm) == ("SIMULATED", False, 0.1)
    assert meter.info.name == f"fake at {address}"
    assert re.search(r"clocks known to \d+\.\d\d ms", meter.info.notes[-1])


def test_a_change_of_the_load_is_seen_when_it_happens(served):
    other, address = served
    clock = PerfClock()
    with open_meter(address, clock=clock) as meter, Sampler(meter, clock) as sampler:
        clock.sleep(0.5)
        other.set_load_w(4.0)
        changed_ns = clock.now_ns()
        clock.sleep(0.5)
    trace = sampler.trace()
    first_ns = trace.t_ns[trace.power_w > 3.0][0]
    assert abs(first_ns - changed_ns) < 100e6


def test_the_end_of_the_other_board_is_an_error_with_its_reason(served):
    other, address = served
    clock = PerfClock()
    with open_meter(address, clock=clock) as meter, Sampler(meter, clock) as sampler:
        clock.sleep(0.3)
        other.bus.unplug()
        clock.sleep(0.5)
    assert "no acknowledge" in sampler.trace().error
    assert len(sampler.trace().t_ns) > 10


class Counter(EnergyMeter):
    """A counter of joules that rises by 2 W."""

    def __init__(self, clock):
        self.clock = clock
        self.info = replace(open_meter("fake", clock=clock).info, kind="counter")

    def read(self):
        return EnergyReading(self.clock.now_ns(), 2.0 * self.clock.now_ns() * 1e-9)


def test_a_counter_stays_one(serve):
    server = serve(Counter(PerfClock()), PerfClock())
    clock = PerfClock()
    address = f"tcp://127.0.0.1:{server.server_address[1]}"
    with open_meter(address, clock=clock) as meter, Sampler(meter, clock) as sampler:
        clock.sleep(0.4)
    trace = sampler.trace()
    assert trace.power_w is None
    seconds = (trace.t_ns[-1] - trace.t_ns[0]) * 1e-9
    assert trace.values[-1] - trace.values[0] == pytest.approx(2.0 * seconds, rel=0.1)


@pytest.mark.parametrize("address", ["tcp://", "tcp://host", "tcp://host:port"])
def test_what_is_no_address(address):
    with pytest.raises(InputError, match=r"tcp://"):
        open_meter(address)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(MeterNotFound, match="run pi-dynn meter --serve there"):
        open_meter(f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("said", "error", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", MeterNotFound, "no meter of pi_dynn"),
        (b'{"meter": {"name": "x"}}\n', MeterNotFound, "no meter of pi_dynn"),
        (b"[]\n", MeterNotFound, "no meter of pi_dynn"),
    ],
)
def test_something_else_that_answers(said, error, why):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)
                connection.recv(100)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(error, match=why):
            open_meter(f"tcp://127.0.0.1:{server.getsockname()[1]}")


def test_a_client_that_talks_nonsense_does_no_harm(served):
    _, address = served
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert "meter" in json.loads(connection.makefile().readline())
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with open_meter(address) as meter:
        assert meter.info.name.startswith("fake")
