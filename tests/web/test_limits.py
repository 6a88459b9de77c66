"""The server under clients that stall, guess or come from elsewhere: it sheds them and stays alive."""

import asyncio
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")
import psutil
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.testclient import TestClient

from pi_dynn import Session
from pi_dynn.classify.live import LiveClassifier
from pi_dynn.clock import PerfClock
from pi_dynn.web.app import Web, WebSettings, build_app
from pi_dynn.web.limits import TokenFailures, most_connections

SAMPLE = sorted((Path(__file__).parents[2] / "pi_dynn" / "assets" / "samples").glob("*.jpg"))[0].read_bytes()


def app(**settings):
    return build_app(LiveClassifier(Session(threads=1), PerfClock()), WebSettings(**settings))


def health(address: str) -> int:
    with urllib.request.urlopen(address + "healthz", timeout=20) as answer:
        return answer.status


def stalled(address: str, text: bytes) -> socket.socket:
    """A connection that sends `text` and then nothing."""
    connection = socket.create_connection(("127.0.0.1", int(address.rstrip("/").rpartition(":")[2])), timeout=20)
    connection.sendall(text)
    return connection


def test_three_hundred_stalled_connections_and_sixty_uploads_leave_it_alive(server):
    address, process = server
    upload = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + SAMPLE[:1000]
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(stalled(address, b"GET /heal"))
        assert health(address) == 200
        for _ in range(60):
            stack.enter_context(stalled(address, upload))
        assert health(address) == 200
        # Most of them were closed or refused, not kept.
        assert len(psutil.Process(process.pid).net_connections(kind="tcp")) <= most_connections() + 1
    request = urllib.request.Request(address + "classify", SAMPLE)
    for _ in range(100):  # until the server has seen that the others have gone
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert answer.status == 200
                break
        except urllib.error.HTTPError as error:
            assert error.code == 503
            time.sleep(0.1)
    else:
        pytest.fail("no image was answered after the stalled uploads had gone")


def test_sigterm_is_an_orderly_end(server):
    address, process = server
    assert health(address) == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    with pytest.raises((urllib.error.URLError, subprocess.SubprocessError)):
        health(address)


def test_a_body_that_does_not_arrive_is_given_up():
    async def receive():
        await asyncio.sleep(60)

    web = Web(LiveClassifier(Session(threads=1), PerfClock()), WebSettings(body_s=0.05))
    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    # In a thread of its own, because a browser of other tests may have left a running loop in this one.
    with ThreadPoolExecutor(1) as pool, pytest.raises(HTTPException, match="did not arrive within 0.05 s") as caught:
        pool.submit(lambda: asyncio.run(web._body(request))).result()
    assert caught.value.status_code == 408
    with TestClient(app(most_bodies=0)) as client:
        answer = client.post("/classify", content=SAMPLE)
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"


def test_pages_of_others_and_other_hosts_are_refused():
    with TestClient(app(hosts=("localhost",)), base_url="http://localhost") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400
        other = client.post("/classify", content=SAMPLE, headers={"Origin": "http://evil.example"})
        assert other.status_code == 403 and "evil.example" in other.json()["error"]
        assert client.post("/classify", content=SAMPLE, headers={"Origin": "http://localhost"}).status_code == 200


def test_guessing_a_token_ends_soon():
    with TestClient(app(token="secret")) as client:
        codes = [client.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code for _ in range(12)]
        assert codes == [401] * 10 + [429] * 2
        right = client.get("/metrics", headers={"Authorization": "Bearer secret"})
        assert right.status_code == 429 and 0 < int(right.headers["Retry-After"]) <= 60


def test_wrong_tokens_are_forgotten_in_time():
    now = [0.0]
    failures = TokenFailures(lambda: now[0], most=2, within_s=10.0)
    failures.add("a")
    assert failures.wait_s("a") == 0.0
    now[0] = 4.0
    failures.add("a")
    assert failures.wait_s("a") == 6.0 and failures.wait_s("b") == 0.0
    now[0] = 11.0
    assert failures.wait_s("a") == 0.0
