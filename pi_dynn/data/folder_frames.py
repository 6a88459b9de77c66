"""A feed of the image files written to a folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pi_dynn.clock import Clock
from pi_dynn.data.decode import SUFFIXES
from pi_dynn.data.frames import FrameFeed
from pi_dynn.errors import InputError, need_extra

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent


class FolderFeed(FrameFeed):
    """A feed of image files that are closed by their writer, or moved in, anywhere below `folder`.

    A file counts once the kernel reports that its writer has closed it. Hidden files, files without an image's
    suffix, and files that were there before are ignored.

    Raises: InputError without watchdog, or if the kernel cannot watch the folder.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(str(folder), clock)
        with need_extra("watch", "watching a folder"):
            from watchdog.events import DirDeletedEvent, FileClosedEvent, FileMovedEvent, FileSystemEventHandler
            from watchdog.observers.inotify import InotifyObserver

        class Handler(FileSystemEventHandler):
            def on_closed(_, event: "FileSystemEvent") -> None:
                self._finished(os.fsdecode(event.src_path))

            def on_moved(_, event: "FileSystemEvent") -> None:
                self._finished(os.fsdecode(event.dest_path))

            def on_deleted(_, event: "FileSystemEvent") -> None:
                self._deleted(os.fsdecode(event.src_path))

        # Without full events a file moved in from elsewhere looks like a new file still being written.
        self._observer = InotifyObserver(generate_full_events=True)
        kinds: list[type[FileSystemEvent]] = [FileClosedEvent, FileMovedEvent, DirDeletedEvent]
        try:
            self._observer.schedule(Handler(), str(folder), recursive=True, event_filter=kinds)
            self._observer.start()
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be watched ({error.strerror}); see fs.inotify.max_user_watches in sysctl"
            ) from error

    def close(self) -> None:
        self._observer.stop()
        self._observer.join(timeout=2.0)

    def _finished(self, path: str) -> None:
        file = Path(path) if path else None  # a file moved out of the folder has no path any more
        if file is not None and file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
            self._arrived(str(file), lambda: file, keep=True)

    def _deleted(self, path: str) -> None:
        if path == self.name:
            self._end(InputError(f"{path}: the folder is gone; make it again and start anew"))
