#!/usr/bin/env python3
"""`pi-dynn serve` under clients that stall: how long `/healthz` takes, and how much memory the server has.

    python benchmarks/serve_stalled.py

300 connections that send half a request, 60 uploads of a picture that stop within, and the same again with a server
that may open 128 files only, fewer than there are connections.
"""

import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import click
import psutil

import pi_dynn.assets
from pi_dynn.text import milliseconds, table

SAMPLE = next(Path(pi_dynn.assets.__path__[0], "samples").glob("*.jpg")).read_bytes()
HALF = b"GET /heal"
UPLOAD = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15000000\r\n\r\n" + bytes(10_000_000)
FEW_FILES = 128


@click.command()
def main() -> None:
    """Print a row for each case."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    rows = [
        row(name, connections, text, files)
        for files in (None, FEW_FILES)
        for name, connections, text in (
            ("300 connections stalled", 300, HALF),
            ("60 uploads stalled after 10 MB", 60, UPLOAD),
        )
    ]
    headers = ("case", "files it may open", "/healthz, slowest of 20", "most memory", "answers afterwards")
    click.echo(table(headers, rows, markdown=True))


def row(name: str, connections: int, text: bytes, files: int | None) -> tuple[str, ...]:
    """One server under so many clients that send `text` and then nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def limited() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    command = [sys.executable, "-m", "pi_dynn.cli", "serve", "--no-energy", "--threads", "1", "--port", str(port)]
    server = subprocess.Popen(command, preexec_fn=limited, stderr=subprocess.DEVNULL)
    process, address = psutil.Process(server.pid), f"http://127.0.0.1:{port}/"
    try:
        health_s(address, patience_s=60.0)
        slowest_s, most_bytes = 0.0, 0
        with ExitStack() as stack:
            for _ in range(connections):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                client.setblocking(False)
                with suppress(OSError):  # shed
                    client.send(text)
            for _ in range(20):
                slowest_s = max(slowest_s, health_s(address))
                most_bytes = max(most_bytes, process.memory_info().rss)
                time.sleep(0.1)
        answered = urlopen(Request(address + "classify", SAMPLE, {"Content-Type": "image/jpeg"}), timeout=30).status
        open_files = "as usual" if files is None else str(files)
        return name, open_files, milliseconds(slowest_s), f"{most_bytes / 1e6:.0f} MB", str(answered == 200)
    finally:
        server.terminate()
        server.wait(30)


def health_s(address: str, patience_s: float = 10.0) -> float:
    """Seconds until `/healthz` has answered, refusals included."""
    start_s = time.perf_counter()
    while True:
        try:
            with urlopen(address + "healthz", timeout=5) as answer:
                answer.read()
            return time.perf_counter() - start_s
        except (URLError, OSError):
            if time.perf_counter() - start_s > patience_s:
                raise
            time.sleep(0.01)


if __name__ == "__main__":
    main()
