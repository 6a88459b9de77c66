"""Decoding of every kind of picture, and errors for bad files."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pi_dynn.data import decode
from pi_dynn.data.decode import ImageBytes, decode_image, to_rgb
from pi_dynn.errors import InputError

LEFT_RED = Image.new("RGB", (40, 30), "red")
LEFT_RED.paste("blue", (20, 0, 40, 30))


def saved(tmp_path, image: Image.Image, name: str, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tiff", "a.gif", "a.ppm"])
def test_common_formats(tmp_path, name):
    image = decode_image(saved(tmp_path, LEFT_RED, name))
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert image.getpixel((5, 15))[0] > 200 > image.getpixel((5, 15))[2]
    assert image.getpixel((35, 15))[2] > 200


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    image = decode_image(saved(tmp_path, LEFT_RED, "turned.jpg", exif=exif, quality=95))
    assert image.size == (30, 40)
    assert image.getpixel((15, 5))[0] > 200 and image.getpixel((15, 35))[2] > 200


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    image = decode_image(saved(tmp_path, Image.fromarray(grey), "deep.png"))
    values = np.asarray(image)[..., 0]
    assert values.min() == 0 and values.max() == 255
    assert 120 < values.mean() < 135


def test_palette_cmyk_grey_and_bilevel(tmp_path):
    for mode, name in (("P", "p.png"), ("CMYK", "c.jpg"), ("L", "l.png"), ("1", "b.png"), ("LA", "la.png")):
        image = decode_image(saved(tmp_path, LEFT_RED.convert(mode), name))
        assert (image.mode, image.size) == ("RGB", (40, 30))
    assert decode_image(tmp_path / "p.png").getpixel((5, 5)) == (255, 0, 0)
    assert decode_image(tmp_path / "c.jpg").getpixel((5, 5))[0] > 200


def test_transparency_is_shown_on_white(tmp_path):
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert decode_image(saved(tmp_path, clear, "clear.png")).getpixel((3, 3)) == (255, 255, 255)


def test_animated_gif_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    assert decode_image(path).getpixel((10, 10)) == (255, 0, 0)


def test_floating_point_images():
    ramp = Image.fromarray(np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10))
    assert np.asarray(to_rgb(ramp)).max() == 255
    with pytest.raises(InputError, match="not finite"):
        to_rgb(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)))


def test_draft_keeps_enough_pixels(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (1600, 1200), "green"), "large.jpg")
    assert decode_image(path, draft_px=256).size == (400, 300)
    assert decode_image(path).size == (1600, 1200)


def empty_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_bytes() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((300, 300), 60).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


BAD_FILES = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no picture\n", "not an image"),
    "truncated": (jpeg_bytes()[:3000], "damaged or truncated"),
    "truncated header": (jpeg_bytes()[:12], "image"),
    "0x0": (empty_png(0, 0), "image"),
    "no pixels": (empty_png(50, 50), "damaged or truncated"),
    "bomb": (empty_png(30_000, 30_000), "decompression bomb"),
    "larger bomb": (empty_png(60_000, 60_000), "decompression bomb"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_one_line_that_names_them(tmp_path, kind):
    content, reason = BAD_FILES[kind]
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        decode_image(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        decode_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is a folder"):
        decode_image(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; the next test stands in for it")
def test_unreadable_file(tmp_path):
    path = saved(tmp_path, LEFT_RED, "secret.png")
    path.chmod(0)
    with pytest.raises(InputError, match="not readable"):
        decode_image(path)


def test_denied_file(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(decode.Image, "open", denied)
    with pytest.raises(InputError, match="not readable"):
        decode_image(tmp_path / "secret.png")


def test_an_empty_file_in_memory_is_called_empty():
    with pytest.raises(InputError, match="the file is empty"):
        decode_image(ImageBytes(b"", "upload"))


@pytest.mark.parametrize("size", [(1, 7), (7, 1)])
def test_a_picture_one_pixel_wide_or_high(tmp_path, size):
    Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "line.png")
    assert decode_image(tmp_path / "line.png").size == size
