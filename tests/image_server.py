"""An HTTP server on the loopback with images that are there, move, break off, never come or never end."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(stream, "JPEG")
    return stream.getvalue()


class Handler(BaseHTTPRequestHandler):
    agents: list[str] = []

    def do_GET(self) -> None:
        self.agents.append(self.headers["User-Agent"])
        name = self.path.partition("?")[0]
        if name == "/moved":
            self.reply(302, location="/photo.jpg")
        elif name == "/to-a-file":
            self.reply(302, location="file:///etc/hostname")
        elif name == "/to-ftp":
            self.reply(302, location="ftp://127.0.0.1/photo.jpg")
        elif name in ("/photo.jpg", "/caf%C3%A9.jpg"):
            self.reply(200, jpeg())
        elif name == "/page.jpg":
            self.reply(200, b"<html>no picture</html>")
        elif name == "/endless":
            self.reply(200, length=None)
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                pass
        elif name == "/large":
            self.reply(200, length=1 << 40)
        elif name == "/short":
            self.reply(200, jpeg()[:100], length=len(jpeg()))
        elif name == "/silent":
            self.server.released.wait(20)
        else:
            self.send_error(404)

    def reply(self, status: int, body: bytes = b"", location: str | None = None, length: int | None = -1) -> None:
        self.send_response(status)
        if location is not None:
            self.send_header("Location", location)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def image_server() -> Iterator[str]:
    """The address of a server that runs as long as the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        one.daemon_threads = True
        one.released = threading.Event()
        threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.released.set()
        one.shutdown()
