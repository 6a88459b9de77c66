"""Messages that make a watch a device of Home Assistant, by its MQTT discovery.

Source: home-assistant.io, integrations MQTT (discovery, birth and last will) and MQTT sensor.
"""

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from pi_dynn.classify.mqtt import Message
from pi_dynn.classify.text import NONE, told_label
from pi_dynn.records import Prediction

PREFIX = "homeassistant"  # what Home Assistant listens to, unless its configuration says otherwise
LONGEST_STATE = 255  # characters


class HomeAssistant:
    """The device that Home Assistant shows for one watch: a sensor with the label, and one with the probability.

    `topic` is that of the lines of the watch; below it are `state`, `attributes` and `availability`, all retained. A
    topic is one device, so every camera of a broker needs a topic of its own.
    """

    birth_topic = f"{PREFIX}/status"

    def __init__(self, topic: str, source: str, labels: Sequence[str], model: str) -> None:
        self._topic, self._source = topic, source
        # Two topics may differ in characters alone that an id cannot have.
        slug = re.sub(r"[^a-z0-9]+", "_", topic.lower()).strip("_")
        self.unique_id = f"pi_dynn_{slug}_{sha256(topic.encode()).hexdigest()[:6]}"
        self._available = True
        self._last: list[Message] = []
        self.describe(labels, model)

    def describe(self, labels: Sequence[str], model: str) -> None:
        """Take the classes and the name of another network into the discovery from now on."""
        self._options = list(dict.fromkeys([*(label[:LONGEST_STATE] for label in labels), NONE]))
        self._model = model

    def discovery(self) -> list[Message]:
        """The retained configuration of both sensors."""
        label = {
            "name": "Label",
            "state_topic": f"{self._topic}/state",
            "json_attributes_topic": f"{self._topic}/attributes",
            "device_class": "enum",
            "options": self._options,
            "icon": "mdi:image-search",
        }
        probability = {
            "name": "Probability",
            "state_topic": f"{self._topic}/attributes",
            "value_template": "{{ (100 * value_json.probability) | round(1) }}",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "entity_category": "diagnostic",
            "icon": "mdi:percent",
        }
        return [self._sensor("label", label), self._sensor("probability", probability)]

    def greeting(self) -> list[Message]:
        """That the watch is there, its discovery, and the last answer."""
        return [self._availability(), *self.discovery(), *self._last]

    def farewell(self) -> Message:
        """That the watch is gone."""
        return Message(f"{self._topic}/availability", "offline", retain=True)

    def answered(self, line: dict[str, Any], answer: Prediction) -> list[Message]:
        """The state for an answer, and its line as attributes."""
        self._last = [
            Message(f"{self._topic}/state", told_label(answer)[:LONGEST_STATE], retain=True),
            Message(f"{self._topic}/attributes", json.dumps(line), retain=True),
        ]
        return self._last

    def available(self, available: bool) -> list[Message]:
        """The message that the camera was lost or is back, where that is news."""
        news, self._available = available != self._available, available
        return [self._availability()] if news else []

    def _availability(self) -> Message:
        return Message(f"{self._topic}/availability", "online" if self._available else "offline", retain=True)

    def _sensor(self, name: str, values: dict[str, Any]) -> Message:
        device = {
            "identifiers": [self.unique_id],
            "name": f"{self._topic.rpartition('/')[2]} ({self._source})",
            "manufacturer": "pi_dynn",
            "model": self._model,
        }
        common = {
            "unique_id": f"{self.unique_id}_{name}",
            "availability_topic": f"{self._topic}/availability",
            "qos": 1,
            "device": device,
            "origin": {"name": "pi_dynn"},
        }
        topic = f"{PREFIX}/sensor/{self.unique_id}/{name}/config"
        return Message(topic, json.dumps(values | common), retain=True)
