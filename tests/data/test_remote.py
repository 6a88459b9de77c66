"""Images over HTTP, from a server on the loopback that behaves well or badly."""

import pytest

from pi_dynn.clock import FakeClock
from pi_dynn.data import remote
from pi_dynn.data.decode import decode_image
from pi_dynn.data.preprocess import Preprocess
from pi_dynn.data.remote import fetch_image
from pi_dynn.errors import InputError
from tests.image_server import Handler, image_server


@pytest.fixture(scope="module")
def server():
    with image_server() as address:
        yield address


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("name", ["photo.jpg", "moved", "photo.jpg?size=[1]&x=ü", "café.jpg"])
def test_an_address_is_an_image(server, name):
    image = decode_image(f"{server}/{name}")
    assert image.size == (60, 40) and image.getpixel((30, 20))[0] > 200
    assert Handler.agents[-1].startswith("pi_dynn/")
    assert Preprocess(16)(f"{server}/{name}").shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.jpg", "the server answers 404 Not Found"),
        ("page.jpg", "not an image in a format that is known here"),
        ("large", "more than 64 MiB; download it"),
        ("endless", "more than 1 MiB; download it"),
        ("short", "broke off after 100 of "),
        ("silent", "nothing came for 0 s|timed out"),
        ("to-a-file", "the server answers 302"),
        ("to-ftp", "cannot be fetched .*ftp"),
    ],
)
def test_what_goes_wrong_is_one_line_with_the_address(server, name, reason, monkeypatch):
    if name == "endless":
        monkeypatch.setattr(remote, "MAX_BYTES", 1 << 20)
    if name == "silent":
        monkeypatch.setattr(remote, "READ_TIMEOUT_S", 0.2)
    with pytest.raises(InputError, match=reason) as caught:
        decode_image(f"{server}/{name}")
    assert str(caught.value).startswith(f"{server}/{name}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/a.jpg", "http://[::1/a.jpg", "http://", "http://a b/c.jpg", "https://x:y/"]
)
def test_addresses_that_lead_nowhere(address):
    with pytest.raises(InputError, match="cannot be fetched"):
        decode_image(address)


def test_slow_bytes_end_some_time(server):
    with pytest.raises(InputError, match="takes longer than 60 s"):
        fetch_image(f"{server}/endless", FakeClock(tick_ns=40 * 10**9))
