"""A real browser and a real server for the tests of pages."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest


@pytest.fixture(scope="module")
def server():
    """`pi-dynn serve` as a process of its own, with a simulated meter; its address, and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pi_dynn.cli", "serve", "--port", str(port), "--threads", "1", "--meter", "fake"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}/"
    for _ in range(600):
        try:
            urllib.request.urlopen(address + "healthz", timeout=5).close()
            break
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
    yield address, process
    process.kill()
    process.wait()
    process.stderr.close()
