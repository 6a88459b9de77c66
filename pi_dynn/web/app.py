"""The routes: the page and what it shows, POST /classify, GET /events, /metrics and /healthz."""

import asyncio
import hmac
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from pi_dynn.classify.live import Busy, LiveAnswer, LiveClassifier
from pi_dynn.errors import PiDynnError
from pi_dynn.text import label_words
from pi_dynn.web.limits import TokenFailures
from pi_dynn.web.metrics import Metrics

EVENTS_KEPT = 64  # for a client that does not read them; older ones are dropped


@dataclass(frozen=True)
class WebSettings:
    """Access and limits: without a `token` every client has access; an image has at most `most_bytes`.

    `hosts` are the names and addresses a request may be for, None for any; a body has to arrive within `body_s`, and at
    most `most_bodies` may be on their way at a time, so that they take at most `most_bodies` x `most_bytes` of memory.
    """

    token: str | None = None
    most_bytes: int = 20_000_000
    hosts: tuple[str, ...] | None = None
    body_s: float = 30.0
    most_bodies: int = 8


def build_app(classifier: LiveClassifier, settings: WebSettings) -> Starlette:
    """The application; it opens the classifier at its start, and at its end closes it after the waiting images."""
    web = Web(classifier, settings)
    routes = [
        Route("/", web.page),
        Route("/about", web.about),
        Route("/samples/{name}", web.sample),
        Route("/classify", web.classify, methods=["POST"]),
        Route("/events", web.events),
        Route("/metrics", web.metrics),
        Route("/healthz", web.health),
    ]
    hosts = [Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts))] if settings.hosts else []
    handlers = {HTTPException: refusal, ClientDisconnect: left}
    return Starlette(routes=routes, lifespan=web.lifespan, exception_handlers=handlers, middleware=hosts)


async def left(_: Request, error: Exception) -> Response:
    """What nobody gets: the client has gone before its request was whole."""
    return Response(status_code=400)


async def refusal(_: Request, error: Exception) -> Response:
    """The response to an HTTP error: one line under the key `error`."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _samples(labels: Sequence[str]) -> dict[str, Path]:
    """The sample photographs by name, if the bundle knows what they show."""
    paths = sorted((resources.files("pi_dynn.assets") / "samples").iterdir(), key=lambda path: path.name)
    known = [Path(str(path)) for path in paths if path.name.rstrip("0123456789.jpg") in labels]
    return {path.name: path for path in known}


class Web:
    """The handlers, around one classifier."""

    def __init__(self, classifier: LiveClassifier, settings: WebSettings) -> None:
        self._classifier, self._settings = classifier, settings
        self._metrics = Metrics(classifier)
        self._failures = TokenFailures(lambda: asyncio.get_running_loop().time())
        self._bodies = 0  # on their way

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        with self._classifier:
            yield

    def _admit(self, request: Request) -> None:
        """Check the token of a request. Raises: HTTPException 401; 429 after many wrong ones."""
        token = self._settings.token
        if token is None:
            return
        address = request.client.host if request.client else ""
        wait_s = self._failures.wait_s(address)
        if wait_s:
            raise HTTPException(429, "too many wrong tokens", {"Retry-After": str(math.ceil(wait_s))})
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            credentials = request.query_params.get("token", "")  # a page and its event stream can set no header
        if not hmac.compare_digest(credentials.encode(), token.encode()):
            self._failures.add(address)
            raise HTTPException(401, "wrong or missing token", {"WWW-Authenticate": "Bearer"})

    async def page(self, request: Request) -> Response:
        self._admit(request)
        return HTMLResponse((resources.files("pi_dynn.web") / "page.html").read_text(encoding="utf-8"))

    async def about(self, request: Request) -> Response:
        """The bundle: its classes in words, exits and their multiply-adds, and the sample photographs it knows."""
        self._admit(request)
        session, power = self._classifier.session, self._classifier.power
        manifest = session.manifest
        return JSONResponse(
            {
                "model": manifest.model,
                "precision": manifest.precision,
                "engine": session.engine,
                "threads": session.threads,
                "words": {label: label_words(label) for label in manifest.labels},
                "blocks": manifest.blocks,
                "macs": manifest.macs,
                "meter": None if power is None else power.info.name,
                "meter_label": None if power is None else power.info.label,
                "samples": sorted(_samples(manifest.labels)),
            }
        )

    async def sample(self, request: Request) -> Response:
        """One of the sample photographs."""
        self._admit(request)
        path = _samples(self._classifier.session.manifest.labels).get(request.path_params["name"])
        if path is None:
            raise HTTPException(404, "no such sample")
        return Response(path.read_bytes(), media_type="image/jpeg")

    async def classify(self, request: Request) -> Response:
        """The answer to an image, which is the body or the first file of a form."""
        self._admit(request)
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin is not None and urlsplit(origin).netloc != host:
            raise HTTPException(403, f"a page of {origin[:100]} may not ask {host[:100]}")
        image = await self._image(request)
        try:
            answer = await asyncio.wrap_future(self._classifier.submit(image))
        except Busy as error:
            raise HTTPException(503, str(error), {"Retry-After": str(math.ceil(error.retry_s))}) from error
        except PiDynnError as error:
            raise HTTPException(422, " ".join(str(error).split())) from error
        return JSONResponse(self._object(answer))

    def _object(self, answer: LiveAnswer) -> dict:
        fields = answer.to_dict()
        return fields.pop("prediction") | fields | {"exits": self._classifier.session.exits + 1}

    async def _image(self, request: Request) -> bytes:
        """The bytes of the image, never more than allowed. Raises: HTTPException 413, 400."""
        most = self._settings.most_bytes
        stated = request.headers.get("content-length", "")
        if stated.isdigit() and int(stated) > most:
            raise HTTPException(413, f"{int(stated):,} bytes: the limit is {most:,}")
        body = await self._body(request)
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return body
        request._body = body  # starlette: the form parser reads what was read already from there
        try:
            async with request.form(max_files=1, max_part_size=most) as form:
                for value in form.values():
                    if not isinstance(value, str):
                        return await value.read()
        except (MultiPartException, HTTPException) as error:
            raise HTTPException(400, f"not a form with one file: {error}") from error
        raise HTTPException(400, "the form holds no file")

    async def _body(self, request: Request) -> bytes:
        """The body, within the limits. Raises: HTTPException 413, 408, 503."""
        if self._bodies >= self._settings.most_bodies:
            raise HTTPException(503, f"{self._bodies} images are being sent already", {"Retry-After": "1"})
        self._bodies += 1
        try:
            return await asyncio.wait_for(self._read(request), self._settings.body_s)
        except asyncio.TimeoutError as error:
            raise HTTPException(408, f"the image did not arrive within {self._settings.body_s:g} s") from error
        finally:
            self._bodies -= 1

    async def _read(self, request: Request) -> bytes:
        most, body = self._settings.most_bytes, bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise HTTPException(413, f"more than {most:,} bytes, which is the limit")
        return bytes(body)

    async def events(self, request: Request) -> Response:
        """All answers from now on, as server-sent events."""
        self._admit(request)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[LiveAnswer] = asyncio.Queue(EVENTS_KEPT)

        def offer(answer: LiveAnswer) -> None:
            if waiting.full():
                waiting.get_nowait()
            waiting.put_nowait(answer)

        unwatch = self._classifier.watch(lambda answer: loop.call_soon_threadsafe(offer, answer))

        async def stream() -> AsyncIterator[dict]:
            try:
                while True:
                    yield {"data": json.dumps(self._object(await waiting.get()))}
            finally:
                unwatch()

        return EventSourceResponse(stream())

    async def metrics(self, request: Request) -> Response:
        self._admit(request)
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def health(self, _: Request) -> Response:
        """The liveness check of a supervisor, which needs no token."""
        return JSONResponse({"status": "ok"})
