"""Publishing to a real mosquitto that is stopped and started again."""

import shutil
import socket
import subprocess
import sys

import pytest

from pi_dynn.classify.mqtt import ON_THE_WAY, Broker, MqttPublisher, parse_broker
from pi_dynn.errors import BrokerUnavailable, InputError
from tests.mosquitto import Mosquitto, wait_until


@pytest.fixture
def broker(tmp_path):
    mosquitto = Mosquitto(tmp_path)
    yield mosquitto
    mosquitto.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://host/a", Broker("host", 1883, "a")),
        ("mqtt://who:p%40ss@host:99/a/b%20c", Broker("host", 99, "a/b c", "who", "p@ss")),
        ("mqtts://[::1]/a", Broker("::1", 8883, "a", tls=True)),
    ],
)
def test_addresses(url, expected):
    assert parse_broker(url) == expected
    assert "p@ss" not in expected.name


@pytest.mark.parametrize(
    "url", ["", "host/a", "http://who:secret@host/a", "mqtt:///a", "mqtt://host", "mqtt://host/a/+", "mqtt://host:x/a"]
)
def test_addresses_that_are_none(url):
    with pytest.raises(InputError, match="expected mqtt://host/topic") as caught:
        parse_broker(url)
    assert "secret" not in str(caught.value)


def test_every_message_arrives_in_order(broker):
    broker.listen()
    with MqttPublisher(parse_broker(broker.url())) as publisher:
        for i in range(ON_THE_WAY):
            assert publisher.publish(str(i))
    assert (publisher.published, publisher.unpublished) == (ON_THE_WAY, 0)
    wait_until(lambda: len(broker.heard) == ON_THE_WAY)
    assert broker.heard == [("garden/birds", str(i).encode()) for i in range(ON_THE_WAY)]


def test_a_broker_that_restarts_is_found_again_and_nothing_was_queued(broker):
    said = []
    with MqttPublisher(parse_broker(broker.url()), said.append) as publisher:
        assert publisher.publish("before")
        wait_until(lambda: publisher.published == 1)
        broker.down()
        wait_until(lambda: said)
        assert not any(publisher.publish("meanwhile") for _ in range(100))
        assert publisher.unpublished == 100
        broker.up()
        broker.listen()
        wait_until(lambda: len(said) == 2)
        wait_until(lambda: publisher.publish("after"))
        wait_until(lambda: broker.heard)
    assert {payload for _, payload in broker.heard} == {b"after"}
    assert "connection lost" in said[0] and said[1].endswith("back")


def test_a_broker_that_hangs_is_not_waited_for(broker):
    with MqttPublisher(parse_broker(broker.url())) as publisher:
        broker.freeze()
        assert sum(publisher.publish(str(i)) for i in range(200)) == ON_THE_WAY
        assert (publisher.published, publisher.unpublished) == (0, 200)
        broker.thaw()
        wait_until(lambda: publisher.published == ON_THE_WAY)
        assert publisher.publish("after")
    assert (publisher.published, publisher.unpublished) == (ON_THE_WAY + 1, 200 - ON_THE_WAY)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here to make a certificate")
# paho-mqtt leaves the socket of a failed handshake to the garbage collector
@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_tls_and_an_untrusted_certificate(tmp_path, monkeypatch):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-out", certificate, "-keyout", key],
        check=True,
        capture_output=True,
    )
    mosquitto = Mosquitto(tmp_path, settings=(f"certfile {certificate}", f"keyfile {key}"))
    try:
        broker = parse_broker(mosquitto.url().replace("mqtt:", "mqtts:"))
        with pytest.raises(BrokerUnavailable, match="certificate verify failed"):
            MqttPublisher(broker).__enter__()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with MqttPublisher(broker) as publisher:
            assert publisher.publish("in secret")
        assert publisher.published == 1
    finally:
        mosquitto.close()


def test_a_broker_that_refuses(tmp_path):
    mosquitto = Mosquitto(tmp_path, anonymous=False)
    try:
        url = mosquitto.url().replace("//", "//who:secret@")
        with pytest.raises(BrokerUnavailable, match="refused: .*check address, user and password") as caught:
            MqttPublisher(parse_broker(url)).__enter__()
        assert "secret" not in str(caught.value)
    finally:
        mosquitto.close()


def test_no_broker_and_one_that_does_not_answer(monkeypatch):
    pytest.importorskip("paho.mqtt.client")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        broker = parse_broker(f"mqtt://127.0.0.1:{server.getsockname()[1]}/a")
        with pytest.raises(BrokerUnavailable, match="cannot be reached"):
            MqttPublisher(broker).__enter__()
        server.listen()
        monkeypatch.setattr("pi_dynn.classify.mqtt.ANSWER_S", 0.2)
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            MqttPublisher(broker).__enter__()


def test_without_paho_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with pytest.raises(InputError, match=r"pip install .*\[mqtt\]'"):
        MqttPublisher(Broker("host", 1883, "a"))
