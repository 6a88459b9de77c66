"""What Home Assistant is told, against its published schema, and over a real broker."""

import json
import re

import pytest

from pi_dynn.classify.home_assistant import HomeAssistant
from pi_dynn.classify.mqtt import MqttPublisher, parse_broker
from pi_dynn.records import Prediction
from tests.mosquitto import Mosquitto, wait_until

ANSWER = Prediction("beach", 3, 0.875, 1, 4, 0.9, 0.01, [("beach", 0.875)])
STRANGE = Prediction("beach", 3, 0.4, 1, 4, 0.9, 0.01, [("beach", 0.4)], accepted=False)

# home-assistant.io/integrations/mqtt (discovery) and .../sensor.mqtt, all keys of a sensor's configuration.
TOPIC = re.compile(r"homeassistant/sensor/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config")
SENSOR = {
    *("availability", "availability_mode", "availability_template", "availability_topic", "default_entity_id"),
    *("device", "device_class", "enabled_by_default", "encoding", "entity_category", "entity_picture", "expire_after"),
    *("force_update", "icon", "json_attributes_template", "json_attributes_topic", "last_reset_value_template", "name"),
    *("object_id", "options", "origin", "payload_available", "payload_not_available", "platform", "qos"),
    *("state_class", "state_topic", "suggested_display_precision", "unique_id", "unit_of_measurement"),
    "value_template",
}
DEVICE = {
    *("configuration_url", "connections", "hw_version", "identifiers", "manufacturer", "model", "model_id", "name"),
    *("serial_number", "suggested_area", "sw_version", "via_device"),
}
ORIGIN = {"name", "sw_version", "support_url"}


def check_sensor(topic: str, payload: dict) -> None:
    """Fail for anything that Home Assistant would refuse, or warn of."""
    assert TOPIC.fullmatch(topic)
    assert set(payload) <= SENSOR
    assert isinstance(payload["state_topic"], str)  # the only key a sensor has to have
    assert isinstance(payload["unique_id"], str)  # a device needs it
    device = payload["device"]
    assert set(device) <= DEVICE and device.get("identifiers") or device.get("connections")
    assert payload["origin"]["name"] and set(payload["origin"]) <= ORIGIN
    assert not {"availability", "availability_topic"} <= set(payload)  # one of them
    if "options" in payload:
        assert payload["device_class"] == "enum" and payload["options"]
        assert not {"state_class", "unit_of_measurement"} & set(payload)  # an enum is no number
        assert len(set(payload["options"])) == len(payload["options"])
        assert all(0 < len(option) <= 255 for option in payload["options"])
    assert payload.get("entity_category", "diagnostic") == "diagnostic"  # a sensor cannot be "config"
    assert payload.get("state_class", "measurement") in ("measurement", "total", "total_increasing")
    assert payload.get("qos", 0) in (0, 1, 2)
    assert re.fullmatch(r"[a-z]+:[a-z-]+", payload.get("icon", "mdi:x"))
    for key, value in payload.items():
        if key.endswith("_topic"):
            assert value and not set(value) & set("+#\0")


def home(topic: str = "garden/birds") -> HomeAssistant:
    return HomeAssistant(topic, "camera", ["beach", "forest", "beach"], "gfnet_12_192")


@pytest.mark.parametrize("topic", ["garden/birds", "a", "Größe/ä ö/1", "x" * 300])
def test_the_discovery_keeps_to_the_schema(topic):
    messages = home(topic).discovery()
    assert len({message.topic for message in messages}) == len(messages) == 2
    for message in messages:
        assert message.retain
        check_sensor(message.topic, json.loads(message.payload))


def test_cameras_of_one_broker_are_devices_of_their_own():
    topics = ("garden/birds", "garden_birds", "garden/Birds", "door")
    payloads = [json.loads(message.payload) for topic in topics for message in home(topic).discovery()]
    assert len({payload["unique_id"] for payload in payloads}) == 2 * len(topics)
    assert len({payload["device"]["identifiers"][0] for payload in payloads}) == len(topics)
    assert home().unique_id == home().unique_id  # the same after a restart


def test_states_are_among_the_options():
    device = home()
    options = json.loads(device.discovery()[0].payload)["options"]
    for answer, state in ((ANSWER, "beach"), (STRANGE, "none of these")):
        messages = device.answered({"label": "beach", "probability": answer.probability}, answer)
        assert [message.payload for message in messages][0] == state in options
        assert json.loads(messages[1].payload)["probability"] == answer.probability
        assert all(message.retain for message in messages)
        assert device.greeting()[-2:] == messages


def test_another_bundle_brings_other_options():
    device = home()
    device.describe(["x"], "lsnet_t")
    payload = json.loads(device.greeting()[1].payload)
    assert payload["options"] == ["x", "none of these"] and payload["device"]["model"] == "lsnet_t"


def test_availability_is_told_when_it_changes():
    device = home()
    assert device.available(True) == []
    (lost,) = device.available(False)
    assert (lost.topic, lost.payload, lost.retain) == ("garden/birds/availability", "offline", True)
    assert device.available(False) == [] and device.greeting()[0] == lost
    assert device.available(True)[0].payload == "online"


class Home:
    """Home Assistant as far as it matters: what it knows of devices, from messages it has heard."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker

    def start(self) -> None:
        self._broker.heard.clear()
        self._broker.listen()

    def value(self, topic: str) -> str | None:
        return next((payload.decode() for name, payload in reversed(self._broker.heard) if name == topic), None)

    def entities(self) -> set[str]:
        return {topic for topic, payload in self._broker.heard if topic.endswith("/config") and payload}

    def say_online(self) -> None:
        self._broker._listener.publish("homeassistant/status", "online", qos=1)


@pytest.fixture
def broker(tmp_path):
    mosquitto = Mosquitto(tmp_path)
    yield mosquitto
    mosquitto.close()


def test_restarts_of_home_assistant_and_of_the_broker(broker):
    hub, garden, door = Home(broker), home("garden/birds"), home("door")
    hub.start()
    with (
        MqttPublisher(parse_broker(broker.url("garden/birds")), announcer=garden) as first,
        MqttPublisher(parse_broker(broker.url("door")), announcer=door) as second,
    ):
        wait_until(lambda: len(hub.entities()) == 4)
        assert first.send(*garden.answered({"probability": 0.5}, ANSWER))
        assert second.send(*door.answered({"probability": 0.5}, STRANGE))
        wait_until(lambda: hub.value("garden/birds/state") == "beach" and hub.value("door/state") == "none of these")
        # Home Assistant starts anew: what is retained tells all, and its birth message brings all once more.
        hub.start()
        wait_until(lambda: len(hub.entities()) == 4 and hub.value("garden/birds/availability") == "online")
        broker.heard.clear()
        hub.say_online()
        wait_until(lambda: len(hub.entities()) == 4 and hub.value("door/state") == "none of these")
        # The broker starts anew, and has forgotten everything.
        broker.stop_listening()
        broker.down()
        wait_until(lambda: not first._client.is_connected() and not second._client.is_connected())
        broker.up()
        hub.start()
        wait_until(lambda: len(hub.entities()) == 4 and hub.value("garden/birds/state") == "beach")
        wait_until(lambda: hub.value("door/availability") == "online")
    wait_until(lambda: hub.value("garden/birds/availability") == hub.value("door/availability") == "offline")


def test_the_broker_tells_when_a_watch_dies(broker):
    hub, device = Home(broker), home()
    hub.start()
    with MqttPublisher(parse_broker(broker.url()), announcer=device) as publisher:
        wait_until(lambda: hub.value("garden/birds/availability") == "online")
        publisher._client._sock_close()  # as when the process is killed
        wait_until(lambda: hub.value("garden/birds/availability") == "offline")
        wait_until(lambda: hub.value("garden/birds/availability") == "online")  # it comes back on its own
