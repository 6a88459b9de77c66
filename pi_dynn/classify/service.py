"""A watch as a service of systemd: the text of its unit, and the signs of life it gives.

Source: systemd.service(5), systemd.exec(5), sd_notify(3).
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import need_extra

WATCHDOG_S = 60  # an answer takes a second on the slowest board; loading another bundle beside it, some seconds
BEAT_S = 5.0  # between two signs of life

_UNIT = """\
[Unit]
Description=pi_dynn watches {source}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={folder}
EnvironmentFile=-/etc/pi-dynn.env
Environment=XDG_CACHE_HOME=/var/cache/pi-dynn
CacheDirectory=pi-dynn
User={user}
SupplementaryGroups=video
TimeoutStartSec=300
WatchdogSec={watchdog_s}
Restart=on-failure
RestartSec=30
MemoryMax=80%
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
{writable}
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Service:
    """A watch to be run by systemd: its source, the words of its command, and who runs it where.

    `writable` are the folders that it writes to; the rest of the file system is read-only for it.
    """

    source: str
    command: Sequence[str]
    folder: Path
    user: str
    writable: Sequence[Path] = ()

    @property
    def name(self) -> str:
        """The unit's name: one for each source, so that several cameras have their own."""
        return f"pi-dynn-watch-{re.sub(r'[^a-z0-9]+', '-', self.source.lower()).strip('-')[:60]}.service"

    @property
    def unit(self) -> str:
        """The unit file."""
        return _UNIT.format(
            source=_escaped(self.source),
            command=" ".join(map(_quoted, self.command)),
            folder=_escaped(str(self.folder)),
            user=self.user,
            watchdog_s=WATCHDOG_S,
            writable="".join(f"ReadWritePaths={_quoted(str(path))}\n" for path in self.writable),
        )


def _escaped(text: str) -> str:
    """Text in which systemd finds no specifier, on one line."""
    return " ".join(text.split()).replace("%", "%%")


def _quoted(word: str) -> str:
    """A word as systemd reads it back: quoted, and with no specifier or variable in it."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if re.search(r"[\s\"'\\;]", word) or not word else plain


class Supervisor:
    """Signs of life for systemd, where it started this program; elsewhere nothing happens.

    `beat` is called by the loop that answers and by nothing else, so that systemd notices when that hangs.

    Attributes: there (whether systemd listens).

    Raises: InputError without sdnotify where systemd listens.
    """

    def __init__(self, clock: Clock) -> None:
        self.there = "NOTIFY_SOCKET" in os.environ
        self._clock, self._next_ns = clock, clock.now_ns()
        if self.there:
            with need_extra("watch", "a service of systemd"):
                from sdnotify import SystemdNotifier
            self._notifier = SystemdNotifier()

    def ready(self) -> None:
        """Tell that the watch has begun."""
        self._notify("READY=1")

    def beat(self, status: str) -> None:
        """Tell every BEAT_S seconds that the loop goes round, and its status in a few words."""
        if self.there and self._clock.now_ns() >= self._next_ns:
            self._next_ns = self._clock.now_ns() + round(BEAT_S * 1e9)
            self._notify(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Tell that the watch ends; nothing is told after that."""
        self._notify("STOPPING=1")
        if self.there and self._notifier.socket is not None:
            self._notifier.socket.close()

    def _notify(self, text: str) -> None:
        if self.there:
            self._notifier.notify(text)
