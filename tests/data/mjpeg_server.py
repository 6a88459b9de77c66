"""A network camera on this machine: JPEG frames over HTTP; it can be stopped and started again."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


class MjpegServer:
    """Streams red pictures at `url` while it is up; the port stays the same."""

    def __init__(self) -> None:
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/camera.mjpg"

    def up(self) -> None:
        self._down = down = threading.Event()

        class Stream(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stream = io.BytesIO()
                Image.new("RGB", (64, 48), (250, 10, 10)).save(stream, "JPEG")
                jpeg = stream.getvalue()
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                try:
                    while not down.wait(0.03):
                        self.wfile.write(head + jpeg + b"\r\n")
                except OSError:
                    pass  # the client has left

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Stream)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        if not self._down.is_set():
            self._down.set()
            self._server.shutdown()
            self._server.server_close()
