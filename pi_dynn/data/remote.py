"""Images fetched over HTTP: never more than fits, never for longer than a person waits, from http and https only."""

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
from pi_dynn.data.decode import HeldImage
from pi_dynn.errors import InputError

MOST_BYTES = 64 * 1024 * 1024
QUIET_S = 10.0  # without a byte
LONGEST_S = 60.0  # for all of it
_IN_ADDRESSES = "%/:=&?~#+!$,;'@()*[]"
# Not urllib's own set: an address, or a redirect, must not lead to a file of this machine or to FTP.
_HANDLERS = (
    ProxyHandler,
    HTTPHandler,
    HTTPSHandler,
    HTTPRedirectHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    UnknownHandler,
)


def fetch_image(address: str, clock: Clock | None = None) -> HeldImage:
    """The content at an http or https address; what it is, decoding tells.

    Raises: InputError that names the address if it cannot be fetched, takes longer than LONGEST_S seconds, or holds
    more than MOST_BYTES.
    """
    opener = OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    try:
        request = Request(quote(address, _IN_ADDRESSES), headers={"User-Agent": f"pi_dynn/{__version__}"})
        with opener.open(request, timeout=QUIET_S) as response:
            return HeldImage(_body(address, response, clock or PerfClock()), address)
    except InputError:
        raise
    except HTTPError as error:
        error.close()  # it holds the connection
        raise InputError(f"{address}: the server answers {error.code} {error.reason}; check the address") from error
    except TimeoutError as error:
        raise InputError(f"{address}: nothing came for {QUIET_S:.0f} s; try again later") from error
    except URLError as error:
        raise InputError(f"{address}: cannot be fetched ({error.reason}); check the address and the network") from error
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(f"{address}: cannot be fetched ({error}); check the address and the network") from error


def _body(address: str, response: HTTPResponse, clock: Clock) -> bytes:
    """All bytes of a response. Raises: InputError for too many, too slow ones, or fewer than were announced."""
    stated = response.headers.get("Content-Length", "")
    announced = int(stated) if stated.isdecimal() else None
    end_ns = clock.now_ns() + round(LONGEST_S * 1e9)
    body = bytearray()
    while announced is None or announced <= MOST_BYTES:
        chunk = response.read1(1 << 16)
        body += chunk
        if not chunk or len(body) > MOST_BYTES:
            break
        if clock.now_ns() > end_ns:
            raise InputError(f"{address}: takes longer than {LONGEST_S:.0f} s; download it, and give the file")
    if max(len(body), announced or 0) > MOST_BYTES:
        raise InputError(f"{address}: more than {MOST_BYTES >> 20} MiB; download it, and give the file")
    if announced is not None and len(body) < announced:
        raise InputError(f"{address}: broke off after {len(body):,} of {announced:,} bytes; try again")
    return bytes(body)
