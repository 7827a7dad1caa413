"""Every kind of image file that photo shards hold is decoded upright to RGB, or refused by name."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sspsam.errors import (
    DecompressionBombError,
    ImageError,
    NotAnImageError,
    TruncatedImageError,
    ZeroSizeError,
)
from sspsam.images.decoding import decode_image, difference_hash


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 64, height: int = 48) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) % 256]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    """What is stored turned is shown upright, in every format that can say so."""
    upright = photo()
    to_stored: dict[int, Image.Transpose] = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    method = to_stored.get(orientation)
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = decode_image(encoded(stored, kind, exif=exif))
    assert shown.mode == "RGB"
    assert shown.size == upright.size
    assert difference(shown, upright) < 12


def cmyk() -> bytes:
    return encoded(photo().convert("CMYK"), "JPEG", quality=95)


def palette() -> bytes:
    return encoded(photo().quantize(256), "PNG")


def progressive() -> bytes:
    return encoded(photo(), "JPEG", progressive=True)


def animated() -> bytes:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("black", "white")]
    return encoded(photo().quantize(256), "GIF", save_all=True, append_images=frames, duration=10, loop=0)


@pytest.mark.parametrize("make", [cmyk, palette, progressive, animated])
def test_colour_modes(make: Callable[[], bytes]) -> None:
    image = decode_image(make())
    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert difference(image, photo()) < 14


def test_deep_grey_is_scaled_not_saturated() -> None:
    ramp = (np.arange(256, dtype=np.uint32) * 257).astype(np.uint16)[None].repeat(4, 0)
    expected = np.arange(256)
    as_png = encoded(Image.fromarray(ramp), "PNG")
    wide = Image.fromarray(ramp.astype(np.int32))
    stretched = Image.fromarray(ramp.astype(np.int32) * 1000)
    unit = Image.fromarray((ramp / 65535).astype(np.float32))
    floats = Image.fromarray((ramp / 257).astype(np.float32))
    for image in (as_png, ramp, ramp[:, :, None], wide, stretched, unit, floats):
        grey = np.asarray(decode_image(image))
        assert grey.shape == (4, 256, 3)
        assert np.abs(grey[0, :, 1].astype(int) - expected).max() <= 1
    broken = np.full((3, 3), np.nan, np.float32)
    assert decode_image(Image.fromarray(broken)).size == (3, 3)


def test_alpha_is_composited_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    assert decode_image(encoded(half, "PNG")).getpixel((1, 1)) == (227, 127, 127)
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    for kind in ("PNG", "WEBP"):
        assert decode_image(encoded(clear, kind, lossless=True)).getpixel((1, 1)) == (255, 255, 255)
    assert decode_image(np.asarray(clear)).getpixel((0, 0)) == (255, 255, 255)
    grey = Image.new("LA", (4, 4), (10, 0))
    assert decode_image(encoded(grey, "PNG")).getpixel((1, 1)) == (255, 255, 255)
    indexed = Image.new("P", (4, 4), 0)
    indexed.putpalette([1, 2, 3, 4, 5, 6])
    indexed.putpixel((0, 0), 1)
    shown = decode_image(encoded(indexed, "PNG", transparency=0))
    assert shown.getpixel((1, 1)) == (255, 255, 255)
    assert shown.getpixel((0, 0)) == (4, 5, 6)
    keyed = encoded(Image.new("RGB", (4, 4), (9, 9, 9)), "PNG", transparency=(9, 9, 9))
    assert decode_image(keyed).getpixel((1, 1)) == (255, 255, 255)


def test_given_pil_images_and_arrays() -> None:
    rgb = photo()
    assert difference(decode_image(rgb), rgb) == 0
    assert difference(decode_image(np.asarray(rgb)), rgb) == 0
    assert difference(decode_image(np.asarray(rgb)[:, ::-1][:, ::-1]), rgb) == 0
    assert decode_image(np.asarray(rgb.convert("L"))).mode == "RGB"
    later = Image.open(io.BytesIO(animated()))
    later.seek(2)
    assert difference(decode_image(later), rgb) < 14


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_short_is_refused(kind: str) -> None:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    data = encoded(noisy, kind)
    for share in (0.05, 0.5, 0.9):
        with pytest.raises((TruncatedImageError, NotAnImageError)):
            decode_image(data[: int(len(data) * share)])


def test_refused_input() -> None:
    cases: list[tuple[object, type[ImageError], str]] = [
        (b"", ZeroSizeError, "0 bytes"),
        (b"not an image at all", NotAnImageError, "no image"),
        (b"<html>404</html>" * 50, NotAnImageError, "no image"),
        (b"\xff\xd8\xff\xe0", TruncatedImageError, "header"),
        (b"\x89PNG\r\n\x1a\n", TruncatedImageError, "header"),
        ("path.jpg", NotAnImageError, "str is not an image"),
        (np.zeros((0, 5, 3), np.uint8), ZeroSizeError, "at least 1 px"),
        (np.zeros((5, 5, 3), np.float32), ImageError, "float32"),
        (np.zeros((3, 5, 5), np.uint8), ImageError, "height x width x 3"),
        (np.zeros((5,), np.uint8), ImageError, "shape"),
        (Image.new("RGB", (0, 3)), ZeroSizeError, "at least 1 px"),
    ]
    for image, error, message in cases:
        with pytest.raises(error, match=message):
            decode_image(image)  # type: ignore[arg-type]


def test_damaged_files_never_raise_anything_else() -> None:
    """Flipped bytes give an image or an ImageError: nothing that a row could not hold."""
    chance = random.Random(0)
    originals = [encoded(photo(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")]
    refused = 0
    for round_number in range(300):
        data = bytearray(originals[round_number % len(originals)])
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            assert decode_image(bytes(data), max_pixels=1_000_000).mode == "RGB"
        except ImageError:
            refused += 1
    assert refused > 20


def test_pixel_limit_is_ours_above_and_below_pillows() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DecompressionBombError, match="3,072 pixels, the limit is 3,000"):
        decode_image(encoded(photo(), "PNG"), max_pixels=3000)
    bomb = encoded(Image.new("1", (20000, 10000)), "PNG")
    with pytest.raises(DecompressionBombError):
        decode_image(bomb)
    allowed = encoded(Image.new("1", (9600, 9400)), "PNG")  # Pillow alone warns: an error here
    with ThreadPoolExecutor(2) as pool:
        assert [im.size for im in pool.map(decode_image, [allowed] * 2)] == [(9600, 9400)] * 2
    assert limit == Image.MAX_IMAGE_PIXELS


def test_difference_hash() -> None:
    rng = np.random.default_rng(1)
    scene = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((640, 480))
    other = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((640, 480))

    def distance(a: Image.Image, b: Image.Image) -> int:
        return ((difference_hash(a) ^ difference_hash(b)) & (2**64 - 1)).bit_count()

    recompressed = decode_image(encoded(scene.resize((320, 240)), "JPEG", quality=60))
    assert distance(scene, recompressed) <= 10
    assert distance(scene, other) >= 16
    assert -(2**63) <= difference_hash(scene) < 2**63
    assert difference_hash(Image.new("RGB", (1, 1))) == 0
