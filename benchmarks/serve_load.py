#!/usr/bin/env python3
"""Load on `pi-dynn serve`: clients that upload one image after the other; latency, refusals, losses and memory.

    python benchmarks/serve_load.py --seconds 300 --clients 8

The server runs in a process of its own on the loopback. A client that is refused (503) waits as the response
says and retries. Nothing may be lost: every image a client sent must be answered, and counted in /metrics.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import httpx2 as httpx
import psutil

import pi_dynn.assets
from pi_dynn.stats import percentile
from pi_dynn.text import milliseconds, percent, table

SAMPLES = Path(pi_dynn.assets.__path__[0]) / "samples"


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=300.0, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=8, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of the network.")
def main(seconds: float, clients: int, threads: int) -> None:
    """Load the server and print what came of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pi_dynn.cli", "serve", "--port", str(port), "--threads", str(threads)]
    server = subprocess.Popen([*command, "--meter", "estimate", "--queue", "4"], env=os.environ)
    try:
        asyncio.run(load(f"http://127.0.0.1:{port}", server.pid, seconds, clients))
    finally:
        server.terminate()
        server.wait(30)


async def load(address: str, pid: int, seconds: float, clients: int) -> None:
    """Wait for the server, let the clients run, and print the table."""
    images = [path.read_bytes() for path in sorted(SAMPLES.iterdir())]
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        for _ in range(300):
            try:
                await http.get("/healthz")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.2)
        took_s: list[float] = []
        refused = [0]
        memory: list[int] = []
        end_s = time.perf_counter() + seconds
        watch = asyncio.create_task(watch_memory(pid, memory))
        await asyncio.gather(*(client(http, images[k:] + images[:k], end_s, took_s, refused) for k in range(clients)))
        watch.cancel()
        metrics = (await http.get("/metrics")).text
    counted = next(
        float(line.split()[1]) for line in metrics.splitlines() if line.startswith("pi_dynn_images_answered ")
    )
    tenth = max(1, len(memory) // 10)
    rows = [
        ("answers", f"{len(took_s):,} ({len(took_s) / seconds:.1f} a second)"),
        ("lost", f"{int(counted) - len(took_s):+d} against the count of the server"),
        ("refused with 503, then answered", f"{refused[0]:,} ({percent(refused[0] / (refused[0] + len(took_s)))})"),
        ("time of an answer, median", milliseconds(percentile(took_s, 50))),
        ("p99", milliseconds(percentile(took_s, 99))),
        ("memory after the first tenth", f"{memory[tenth] / 2**20:.1f} MiB"),
        ("memory at the end", f"{memory[-1] / 2**20:.1f} MiB"),
    ]
    click.echo(table((f"{clients} clients, {seconds:.0f} s", ""), rows))


async def client(http, images: list[bytes], end_s: float, took_s: list[float], refused: list[int]) -> None:
    """Upload images in turn until the time is over; each is asked for again until it is answered."""
    number = 0
    while time.perf_counter() < end_s:
        start_s = time.perf_counter()
        while (reply := await http.post("/classify", content=images[number % len(images)])).status_code == 503:
            refused[0] += 1
            await asyncio.sleep(float(reply.headers["retry-after"]))
        reply.raise_for_status()
        took_s.append(time.perf_counter() - start_s)
        number += 1


async def watch_memory(pid: int, memory: list[int]) -> None:
    """Resident memory of the server, twice a second."""
    process = psutil.Process(pid)
    while True:
        memory.append(process.memory_info().rss)
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    main()
