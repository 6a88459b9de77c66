"""What phones make: HEIC, AVIF, and JPEGs of a hundred megapixels."""

import io
import sys

import numpy as np
import pytest
from PIL import Image, features

from pi_dynn.data import decode
from pi_dynn.data.decode import ImageBytes, decode_image, pixel_limit
from pi_dynn.data.folders import walk_images
from pi_dynn.errors import InputError
from tests.data.test_decode import LEFT_RED, empty_png, saved

# As decode.py sets it for good; pytest makes every warning an error.
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture
def small_limit(monkeypatch):
    """A limit that small pictures exceed, of Pillow too."""
    monkeypatch.setattr(decode, "MAX_PIXELS", 10_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)


def test_a_jpeg_of_108_megapixels_is_decoded_scaled(tmp_path):
    path = saved(tmp_path, Image.new("L", (12000, 9000), 200), "phone.jpg")
    image = decode_image(path, draft_px=256)
    assert image.size == (1500, 1125) and image.getpixel((700, 500)) == (200, 200, 200)
    with pytest.raises(InputError, match="12000 x 9000 pixels exceed .* PI_DYNN_MAX_PIXELS=PIXELS"):
        decode_image(path)


def test_the_limit_holds_for_what_is_decoded(tmp_path, small_limit):
    # Pillow itself refuses to open more than twice its limit, whatever would be decoded of it.
    path = saved(tmp_path, LEFT_RED.resize((240, 180)), "large.jpg")
    for source in (path, ImageBytes(path.read_bytes(), "large")):
        image = decode_image(source, draft_px=20)
        assert image.size == (30, 23) and image.getpixel((2, 10))[0] > 200
    for source, draft_px in ((path, 100), (path, None), (ImageBytes(path.read_bytes(), "held"), None)):
        with pytest.raises(InputError, match="(large.jpg|held): 240 x 180 pixels exceed the limit of 10,000"):
            decode_image(source, draft_px=draft_px)
    with pytest.raises(InputError, match="1000 x 180 pixels exceed"):  # eight times the limit, however it is scaled
        decode_image(saved(tmp_path, Image.new("L", (1000, 180)), "wide.jpg"), draft_px=20)


def test_a_progressive_jpeg_is_held_whole_and_counted_whole(tmp_path, small_limit):
    path = saved(tmp_path, LEFT_RED.resize((240, 180)), "progressive.jpg", progressive=True)
    with pytest.raises(InputError, match="240 x 180 pixels exceed"):
        decode_image(path, draft_px=20)


def test_the_limit_can_be_raised_and_lowered(tmp_path, small_limit, monkeypatch):
    path = saved(tmp_path, Image.new("RGB", (300, 200), "green"), "large.png")
    with pytest.raises(InputError, match="could be decompression bomb.*allow more with PI_DYNN_MAX_PIXELS=PIXELS"):
        decode_image(path)
    monkeypatch.setenv("PI_DYNN_MAX_PIXELS", "60000")
    assert decode_image(path).size == (300, 200)
    monkeypatch.setenv("PI_DYNN_MAX_PIXELS", "59999")
    with pytest.raises(InputError, match="exceed the limit of 59,999"):
        decode_image(path)


@pytest.mark.parametrize("value", ["many", "0", "-5", ""])
def test_a_limit_that_is_none_is_said(tmp_path, monkeypatch, value):
    monkeypatch.setenv("PI_DYNN_MAX_PIXELS", value)
    with pytest.raises(InputError, match=f"PI_DYNN_MAX_PIXELS={value}: give a number of pixels"):
        decode_image(saved(tmp_path, LEFT_RED, "a.png"))


def test_the_limit_is_pillows_unless_it_is_set(monkeypatch):
    monkeypatch.delenv("PI_DYNN_MAX_PIXELS", raising=False)
    assert pixel_limit() == decode.MAX_PIXELS == 89_478_485


def test_folders_hold_what_phones_make(tmp_path):
    for name in ("a.HEIC", "b.heif", "c.avif", "d.hif", "e.mov"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in walk_images(tmp_path)] == ["a.HEIC", "b.heif", "c.avif", "d.hif"]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(tmp_path):
    image = decode_image(saved(tmp_path, LEFT_RED, "a.avif", quality=90))
    assert image.size == (40, 30) and image.getpixel((5, 15))[0] > 200 > image.getpixel((5, 15))[2]


@pytest.mark.parametrize(("brand", "reason"), [(b"avif", "needs Pillow 11.3 or newer"), (b"qt  ", "not an image")])
def test_other_media_files(tmp_path, brand, reason, monkeypatch):
    def unknown(source):
        raise decode.UnidentifiedImageError("cannot identify image file")

    monkeypatch.setattr(decode.Image, "open", unknown)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(8))
    with pytest.raises(InputError, match=reason):
        decode_image(tmp_path / "a.heic")


class TestHeic:
    """With pillow-heif, the extra [heic]."""

    @pytest.fixture
    def heic(self) -> bytes:
        heif = pytest.importorskip("pillow_heif")
        stream = io.BytesIO()
        try:
            heif.from_pillow(LEFT_RED.resize((80, 60))).save(stream, quality=90)
        except RuntimeError as error:
            pytest.skip(f"this pillow-heif cannot write: {error}")
        return stream.getvalue()

    def test_a_file_and_one_in_memory(self, heic, tmp_path):
        (tmp_path / "a.heic").write_bytes(heic)
        for source in (tmp_path / "a.heic", str(tmp_path / "a.heic"), ImageBytes(heic, "held")):
            image = decode_image(source, draft_px=32)
            assert (image.mode, image.size) == ("RGB", (80, 60))
            assert np.asarray(image)[30, 10, 0] > 200 > np.asarray(image)[30, 10, 2]

    def test_a_damaged_one_is_one_line(self, heic, tmp_path):
        for share in (0.5, 0.9):
            (tmp_path / "a.heic").write_bytes(heic[: int(share * len(heic))])
            with pytest.raises(InputError, match="a.heic: ") as caught:
                decode_image(tmp_path / "a.heic")
            assert "\n" not in str(caught.value)


def test_without_pillow_heif_it_says_what_to_install(tmp_path, monkeypatch):
    def unknown(source):
        raise decode.UnidentifiedImageError("cannot identify image file")

    monkeypatch.setattr(decode.Image, "open", unknown)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decode._register_heif.cache_clear()
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(8))
    with pytest.raises(InputError, match=r"a\.heic: a HEIC picture needs pillow_heif, .*pip install .*\[heic\]'"):
        decode_image(path)


def test_a_bomb_is_no_jpeg(tmp_path):
    (tmp_path / "bomb.jpg").write_bytes(empty_png(60_000, 60_000))
    with pytest.raises(InputError, match="bomb.jpg: .*PI_DYNN_MAX_PIXELS"):
        decode_image(tmp_path / "bomb.jpg", draft_px=64)
