"""Fetching of images over http and https, with limits of size and time."""

from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from pi_dynn import __version__
from pi_dynn.clock import Clock, PerfClock
from pi_dynn.data.decode import ImageBytes
from pi_dynn.errors import InputError

MAX_BYTES = 64 * 1024 * 1024
READ_TIMEOUT_S = 10.0  # for the next bytes
TOTAL_TIMEOUT_S = 60.0  # for the whole image
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"
# Without urllib's handlers for file: and ftp:, so that no redirect leads to a file of this machine.
_HANDLERS = (
    ProxyHandler,
    HTTPHandler,
    HTTPSHandler,
    HTTPRedirectHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    UnknownHandler,
)


def fetch_image(url: str, clock: Clock | None = None) -> ImageBytes:
    """The content of an http or https URL, not decoded.

    Raises: InputError that names the URL if it cannot be fetched, takes longer than TOTAL_TIMEOUT_S seconds, or holds
    more than MAX_BYTES.
    """
    opener = OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    try:
        request = Request(quote(url, _URL_SAFE), headers={"User-Agent": f"pi_dynn/{__version__}"})
        with opener.open(request, timeout=READ_TIMEOUT_S) as response:
            return ImageBytes(_body(url, response, clock or PerfClock()), url)
    except InputError:
        raise
    except HTTPError as error:
        error.close()  # it holds the connection
        raise InputError(f"{url}: the server answers {error.code} {error.reason}; check the URL") from error
    except TimeoutError as error:
        raise InputError(f"{url}: nothing came for {READ_TIMEOUT_S:.0f} s; try again later") from error
    except URLError as error:
        raise InputError(f"{url}: cannot be fetched ({error.reason}); check the URL and the network") from error
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(f"{url}: cannot be fetched ({error}); check the URL and the network") from error


def _body(url: str, response: HTTPResponse, clock: Clock) -> bytes:
    """All bytes of a response. Raises: InputError for too many, too slow ones, or fewer than were announced."""
    stated = response.headers.get("Content-Length", "")
    announced = int(stated) if stated.isdecimal() else None
    end_ns = clock.now_ns() + round(TOTAL_TIMEOUT_S * 1e9)
    body = bytearray()
    while announced is None or announced <= MAX_BYTES:
        chunk = response.read1(1 << 16)
        body += chunk
        if not chunk or len(body) > MAX_BYTES:
            break
        if clock.now_ns() > end_ns:
            raise InputError(f"{url}: takes longer than {TOTAL_TIMEOUT_S:.0f} s; download it, and give the file")
    if max(len(body), announced or 0) > MAX_BYTES:
        raise InputError(f"{url}: more than {MAX_BYTES >> 20} MiB; download it, and give the file")
    if announced is not None and len(body) < announced:
        raise InputError(f"{url}: broke off after {len(body):,} of {announced:,} bytes; try again")
    return bytes(body)
