"""Publishing of answers to an MQTT broker, with reconnection."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from pi_dynn.errors import BrokerUnavailable, InputError, need_extra

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage, MQTTMessageInfo
    from paho.mqtt.reasoncodes import ReasonCode

ANSWER_S = 10.0  # time-out of the first connection
LAST_MESSAGE_S = 3.0
KEEPALIVE_S = 15
LONGEST_BACK_OFF_S = 30
ON_THE_WAY = 20  # messages sent but not acknowledged; further ones are dropped


@dataclass(frozen=True)
class Broker:
    """Where to publish: mqtt://[user:password@]host[:port]/topic, or mqtts:// with TLS."""

    host: str
    port: int
    topic: str
    user: str | None = None
    password: str | None = None
    tls: bool = False

    @property
    def name(self) -> str:
        """The address without the password."""
        return f"mqtt{'s' * self.tls}://{self.host}:{self.port}/{self.topic}"


def parse_broker(url: str) -> Broker:
    """The broker of a URL. Raises InputError, without the parts that may hold a password."""
    expected = "expected mqtt://host/topic, or mqtts://user:password@host:port/topic"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(f"the broker's address is no URL ({error}); {expected}") from error
    topic = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise InputError(f"the broker's address starts with {parts.scheme or 'nothing'}://; {expected}")
    if not topic or set(topic) & set("+#\0"):
        raise InputError(f"the topic {topic!r} is empty or holds + or #, which are for subscriptions only; {expected}")
    return Broker(
        host=parts.hostname,
        port=port or (8883 if parts.scheme == "mqtts" else 1883),
        topic=topic,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        tls=parts.scheme == "mqtts",
    )


@dataclass(frozen=True)
class Message:
    """A message for a broker, which keeps it for later subscribers if it is to `retain` it."""

    topic: str
    payload: str
    retain: bool = False


class Announcer(Protocol):
    """What is to be published beside the answers."""

    unique_id: str
    """Names the client, so that a new connection takes the place of one the broker still waits for.

    Otherwise the farewell of the old one would come after the greeting of the new one."""
    birth_topic: str
    """A message `online` there asks for the greeting once more."""

    def greeting(self) -> list[Message]:
        """Messages for every new connection; the first is the state of being there."""
        ...

    def farewell(self) -> Message:
        """The message to end with, which the broker publishes if the connection is lost."""
        ...


class MqttPublisher:
    """Publishes at QoS 1; a context manager that connects on entry, and waits for the last message on exit.

    While the broker is lost messages are dropped, not queued, and the connection is retried with exponential
    back-off; the callback `say` reports when it is lost and when it is back. An `announcer` adds messages of its own.

    Attributes: published (messages acknowledged), unpublished (dropped, or not acknowledged yet).

    Raises: InputError without paho-mqtt; on entry BrokerUnavailable.
    """

    def __init__(
        self, broker: Broker, say: Callable[[str], None] = lambda text: None, announcer: Announcer | None = None
    ) -> None:
        with need_extra("mqtt", "--mqtt"):
            from paho.mqtt import client as paho
        self.broker, self.published = broker, 0
        self._say, self._announcer, self._messages = say, announcer, 0
        self._counting = threading.Lock()  # greetings are sent in the client's thread
        self._last: MQTTMessageInfo | None = None
        self._refusal: str | None = None
        self._answered, self._lost = threading.Event(), False
        client_id = "" if announcer is None else announcer.unique_id
        self._client = client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id)
        client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set()
        client.reconnect_delay_set(1, LONGEST_BACK_OFF_S)
        client.max_queued_messages_set(ON_THE_WAY)
        client.on_connect, client.on_disconnect, client.on_publish = self._connected, self._gone, self._acknowledged
        if announcer is not None:
            last = announcer.farewell()
            client.will_set(last.topic, last.payload, qos=1, retain=last.retain)
            client.on_message = self._heard

    def __enter__(self) -> "MqttPublisher":
        name = self.broker.name
        try:
            self._client.connect(self.broker.host, self.broker.port, KEEPALIVE_S)
        except OSError as error:
            raise BrokerUnavailable(f"{name}: cannot be reached ({error}); is a broker running there?") from error
        self._client.loop_start()
        answered = self._answered.wait(ANSWER_S)
        if not answered or self._refusal is not None:
            self._close()
            raise BrokerUnavailable(f"{name}: {self._refusal or 'does not answer'}; check address, user and password")
        return self

    def __exit__(self, *_: object) -> None:
        if self._announcer is not None:
            self.send(self._announcer.farewell())
        if self._last is not None and self._client.is_connected():
            self._last.wait_for_publish(LAST_MESSAGE_S)
        self._close()

    @property
    def unpublished(self) -> int:
        """The number of messages that the broker has not acknowledged."""
        return self._messages - self.published

    def publish(self, text: str) -> bool:
        """Send a text to the broker's topic, as `send` does."""
        return self._send(Message(self.broker.topic, text))

    def greet(self) -> None:
        """Send the announcer's greeting."""
        if self._announcer is not None:
            self.send(*self._announcer.greeting())

    def send(self, *messages: Message) -> bool:
        """Send messages; returns False if one is dropped, without a connection or with too many on their way."""
        dropped = [message for message in messages if not self._send(message)]
        return not dropped

    def _send(self, message: Message) -> bool:
        with self._counting:
            self._messages += 1
        if not self._client.is_connected():
            return False
        info = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        if info.rc != 0:
            return False
        self._last = info
        return True

    def _close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(
        self, client: object, userdata: object, flags: object, reason: "ReasonCode", properties: object
    ) -> None:
        if reason.is_failure:
            self._refusal = f"refused: {reason}"
        elif self._lost:
            self._lost = False
            self._say(f"{self.broker.name}: back")
        if self._announcer is not None and not reason.is_failure:
            self._client.subscribe(self._announcer.birth_topic, qos=1)
            self.greet()
        self._answered.set()

    def _heard(self, client: object, userdata: object, message: "MQTTMessage") -> None:
        if message.payload == b"online":
            self.greet()

    def _gone(self, client: object, userdata: object, flags: object, reason: "ReasonCode", properties: object) -> None:
        if reason.is_failure and not self._lost and self._refusal is None:
            self._lost = True
            self._say(f"{self.broker.name}: connection lost; messages are dropped until it is back")

    def _acknowledged(
        self, client: object, userdata: object, mid: int, reason: "ReasonCode", properties: object
    ) -> None:
        self.published += 1
