"""A real MQTT broker for tests, which can be stopped and started again on the same port.

It is mosquitto or, without that, amqtt (`pip install amqtt`), which knows neither TLS nor passwords here.
"""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

BINARY = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

AMQTT = shutil.which("amqtt") or shutil.which("amqtt", path=str(Path(sys.executable).parent))
AMQTT_CONFIGURATION = """\
listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{port}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
"""


class Mosquitto:
    """The broker and a client that hears everything: `heard` lists (topic, payload)."""

    def __init__(self, folder: Path, anonymous: bool = True, settings: tuple[str, ...] = ()) -> None:
        """`settings` are further lines of its configuration."""
        if BINARY is None and (AMQTT is None or settings or not anonymous):
            pytest.skip("no mosquitto here")
        self._paho = pytest.importorskip("paho.mqtt.client")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._configuration = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(anonymous).lower()}", "user root", *settings]
        self._configuration.write_text(
            "\n".join(lines) + "\n" if BINARY else AMQTT_CONFIGURATION.format(port=self.port)
        )
        self._process = self._listener = None
        self.heard: list[tuple[str, bytes]] = []
        self.up()

    def url(self, topic: str = "garden/birds") -> str:
        return f"mqtt://127.0.0.1:{self.port}/{topic}"

    def up(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([BINARY or AMQTT, "-c", str(self._configuration)], **quiet)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("mosquitto does not start")

    def down(self) -> None:
        """Kill the broker without closing its connections, as a power cut does."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Answer nothing from now on, with all connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        self._process.send_signal(signal.SIGCONT)

    def listen(self) -> None:
        """Fill `heard` from now on."""
        self.stop_listening()
        listener = self._listener = self._paho.Client(self._paho.CallbackAPIVersion.VERSION2)
        subscribed = []
        listener.on_subscribe = lambda *_: subscribed.append(True)
        listener.on_message = lambda client, userdata, message: self.heard.append((message.topic, message.payload))
        listener.connect("127.0.0.1", self.port)
        listener.subscribe("#", qos=1)
        listener.loop_start()
        wait_until(lambda: subscribed)

    def stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.disconnect()
            self._listener.loop_stop()
            self._listener = None

    def close(self) -> None:
        self.stop_listening()
        self.down()


def wait_until(condition, limit_s: float = 30.0) -> None:
    """Return as soon as `condition()` holds; fail after `limit_s`."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)
