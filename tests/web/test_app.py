"""The HTTP API: answers, limits, a full queue, metrics and the token."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")
from starlette.testclient import TestClient

from pi_dynn import Session
from pi_dynn.classify.live import LiveClassifier
from pi_dynn.clock import PerfClock
from pi_dynn.power import open_meter
from pi_dynn.power.live import LivePower
from pi_dynn.web.app import WebSettings, build_app

SAMPLES = sorted((Path(__file__).parents[2] / "pi_dynn" / "assets" / "samples").iterdir())


@pytest.fixture(scope="module")
def session():
    return Session(threads=1)


@pytest.fixture
def client(session):
    with TestClient(build_app(LiveClassifier(session, PerfClock()), WebSettings(most_bytes=200_000))) as client:
        yield client


def test_an_image_as_body_or_form_gets_the_answer_of_the_session(client, session):
    expected = session.classify(SAMPLES[0])
    image = SAMPLES[0].read_bytes()
    for reply in (client.post("/classify", content=image), client.post("/classify", files={"image": image})):
        assert reply.status_code == 200
        answer = reply.json()
        assert answer["label"] == expected.label and answer["block_index"] == expected.block_index
        assert answer["probability"] == pytest.approx(expected.probability)
        assert answer["gross_j"] is None and answer["elapsed_s"] >= answer["latency_s"] > 0


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", 422, "the file is empty"),
        (b"not an image", 422, "not an image"),
        (b"x" * 300_000, 413, "300,000 bytes: the limit is 200,000"),
    ],
)
def test_what_is_no_image_is_one_line(client, content, status, says):
    reply = client.post("/classify", content=content)
    assert reply.status_code == status
    assert says in reply.json()["error"] and "\n" not in reply.json()["error"]


def test_a_stream_without_a_stated_length_is_cut_off_at_the_limit(client):
    reply = client.post("/classify", content=(b"x" * 50_000 for _ in range(10)))
    assert reply.status_code == 413


def test_a_damaged_form_is_an_error_of_the_client(client):
    reply = client.post("/classify", content=b"--x", headers={"content-type": "multipart/form-data; boundary=x"})
    assert reply.status_code == 400
    assert client.post("/classify", data={"a": "b"}, files={}).status_code in (400, 422)


def test_health_and_metrics(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    client.post("/classify", content=SAMPLES[0].read_bytes())
    client.post("/classify", content=b"no")
    text = client.get("/metrics").text
    assert "pi_dynn_images_answered 1.0" in text and "pi_dynn_images_failed 1.0" in text
    assert "pi_dynn_latency_seconds_count{" in text


def test_access_needs_the_token(session):
    settings = WebSettings(token="secret")
    with TestClient(build_app(LiveClassifier(session, PerfClock()), settings)) as client:
        for path in ("/", "/metrics", "/events"):
            assert client.get(path).status_code == 401
            assert client.get(path, params={"token": "wrong"}).status_code == 401
        image = SAMPLES[0].read_bytes()
        assert client.post("/classify", content=image).status_code == 401
        assert client.post("/classify", content=image, headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.get("/", params={"token": "secret"}).status_code == 200
        assert client.get("/healthz").status_code == 200


class Held:
    """A session that answers only after it is released."""

    def __init__(self, session) -> None:
        self._session, self.preprocess = session, session.preprocess
        self.threads, self.manifest, self.exits = session.threads, session.manifest, session.exits
        self.begun, self.go = threading.Event(), threading.Event()

    def set_threads(self) -> None:
        self._session.set_threads()

    def classify(self, *arguments, **options):
        self.begun.set()
        assert self.go.wait(30)
        return self._session.classify(*arguments, **options)


def test_a_full_queue_says_when_to_come_back_and_loses_nothing(session):
    held = Held(session)
    image = SAMPLES[0].read_bytes()
    app = build_app(LiveClassifier(held, PerfClock(), room=2), WebSettings())
    with TestClient(app) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/classify", content=image)
        assert held.begun.wait(30)
        others = [pool.submit(client.post, "/classify", content=image) for _ in range(6)]
        while sum(reply.done() for reply in others) < 4:  # two wait, four come back at once
            threading.Event().wait(0.01)
        refused = [reply.result() for reply in others if reply.done()]
        held.go.set()
        answered = [first.result(), *(reply.result() for reply in others if reply.result() not in refused)]
    assert len(refused) == 4 and all(reply.status_code == 503 for reply in refused)
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert len(answered) == 3 and all(reply.status_code == 200 for reply in answered)


class Slow(Held):
    """A session that takes longer than several samples of a meter, however fast the machine is."""

    def classify(self, *arguments, **options):
        PerfClock().sleep(0.05)
        return self._session.classify(*arguments, **options)


def test_energy_of_an_answer_and_its_label(session):
    clock = PerfClock()
    with ExitStack() as stack:
        power = stack.enter_context(LivePower(stack.enter_context(open_meter("fake", clock=clock)), clock))
        app = build_app(LiveClassifier(Slow(session), clock, power), WebSettings())
        client = stack.enter_context(TestClient(app))
        while power.power_w is None:
            clock.sleep(0.01)
        answer = {"gross_j": None}
        while answer["gross_j"] is None:  # an answer may fall between two samples
            answer = client.post("/classify", content=SAMPLES[0].read_bytes()).json()
        text = client.get("/metrics").text
    assert answer["meter_label"] == "SIMULATED" and answer["gross_j"] > 0
    assert answer["gross_j"] == pytest.approx(answer["power_w"] * answer["elapsed_s"], rel=0.5)
    assert 'pi_dynn_gross_energy_joules_total{label="SIMULATED"}' in text


def test_what_the_page_shows_of_the_bundle(client, session):
    about = client.get("/about").json()
    assert (about["model"], about["blocks"], about["macs"]) == (
        session.manifest.model, session.manifest.blocks, session.manifest.macs
    )  # fmt: skip
    assert about["words"]["denseresidential"] == "dense residential"
    assert about["meter"] is None
    assert about["samples"] == [path.name for path in SAMPLES]
    sample = client.get(f"/samples/{SAMPLES[0].name}")
    assert (sample.content, sample.headers["content-type"]) == (SAMPLES[0].read_bytes(), "image/jpeg")
    for name in ("none.jpg", "..%2f__init__.py", "%2e%2e/MODEL_CARD.md"):
        assert client.get(f"/samples/{name}").status_code == 404


def test_a_bundle_of_other_classes_shows_no_samples(tiny_bundle):
    with TestClient(build_app(LiveClassifier(Session(tiny_bundle, threads=1), PerfClock()), WebSettings())) as client:
        assert client.get("/about").json()["samples"] == []
        assert client.get(f"/samples/{SAMPLES[0].name}").status_code == 404
