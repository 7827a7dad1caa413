"""Any image as RGB: encoded bytes, PIL images and arrays, with the oddities that photo shards hold.

- The first frame of animations and multi-page files; EXIF orientation applied.
- CMYK, YCbCr, palette and grey are converted; colour profiles are ignored, as the authors do.
- Transparency is composited on white.
- 16-bit grey is scaled by its range (65535 becomes 255), not saturated as `Image.convert` does. Deeper
  integers and floats outside 0..1 and 0..255 are stretched from their least to their greatest value.
"""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from sspsam.errors import (
    DecompressionBombError,
    ImageError,
    NotAnImageError,
    SSPSAMError,
    TruncatedImageError,
    ZeroSizeError,
)

#: What the package takes for an image: PIL, uint8 (or uint16) HWC or HW array, or encoded bytes.
ImageInput: TypeAlias = "Image.Image | np.ndarray | bytes | bytearray | memoryview"

#: Pixels above which an image is refused: Pillow's own limit for an error, 179 million.
MAX_PIXELS = 178_956_970

_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}
#: Where the stored right edge comes to lie on the left, the stored lower one at the top.
_FROM_RIGHT = {
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
}
_FROM_BELOW = {
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
}
#: How JPEG, PNG, GIF, WebP and TIFF files begin.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_open_lock = threading.Lock()


@dataclass(frozen=True)
class Decoded:
    """An image of `width` x `height` px, upright: its pixels, perhaps fewer, and where in them it lies."""

    rgb: Image.Image
    width: int
    height: int
    box: tuple[float, float, float, float]  # left, top, right, bottom in pixels of `rgb`


def decode_image(image: ImageInput, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Any supported image -> a loaded PIL image of mode RGB, upright.

    Args:
        image: PIL image; array uint8 or uint16 of shape (H, W), (H, W, 1), (H, W, 3) RGB or
            (H, W, 4) RGBA; or the bytes of an encoded file.
        max_pixels: limit on width x height, checked before anything is decoded.

    Raises:
        NotAnImageError, TruncatedImageError, ZeroSizeError, DecompressionBombError, or ImageError
        for a colour mode or array that nothing here converts.
    """
    return decode_reduced(image, max_pixels, None).rgb


def decode_reduced(image: ImageInput, max_pixels: int, side: int | None) -> Decoded:
    """`decode_image`, but a JPEG may be decoded at a half, a quarter or an eighth of its size.

    That is where most of its cost is saved: the decoder leaves coefficients out (DCT scaling).

    Args:
        side: the long side that must at least remain, pixels; None for all of the image.

    Raises: as `decode_image`.
    """
    if isinstance(image, Image.Image):
        opened = image
    elif isinstance(image, np.ndarray):
        opened = _from_array(image)
    elif isinstance(image, bytes | bytearray | memoryview):
        opened = _open(bytes(image))
    else:
        raise NotAnImageError(
            f"{type(image).__name__} is not an image; give a PIL image, a uint8 HWC array or bytes"
        )
    _check_size(opened, max_pixels)
    width, height = opened.size
    part: tuple[float, float, float, float] | None = None
    if side is not None and opened is not image and isinstance(opened, JpegImageFile):
        # Only the long side counts: the short one is rounded, and would keep 2048 x 1365 from 1024.
        drafted = opened.draft(None, (side, 1) if width >= height else (1, side))  # type: ignore[arg-type]
        part = None if drafted is None else drafted[1]
    try:
        # Animations and multi-page files given as PIL images may stand at any frame.
        if opened is image and getattr(opened, "n_frames", 1) > 1:
            opened.seek(0)
        opened.load()
    except SSPSAMError:
        raise
    except MemoryError as error:
        raise ImageError(f"{_described(opened)}: not enough memory to decode it") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ValueError, ...
        raise TruncatedImageError(f"{_described(opened)}: damaged or cut short ({error})") from error
    upright, method = _upright(opened)
    try:
        rgb = _to_rgb(upright)
    except (OSError, ValueError) as error:
        raise ImageError(f"{_described(opened)}: cannot be converted to RGB ({error})") from error
    if method in _SWAPPING:
        width, height = height, width
    return Decoded(rgb, width, height, _placed(rgb, method, part))


def _placed(
    rgb: Image.Image, method: Image.Transpose | None, part: tuple[float, float, float, float] | None
) -> tuple[float, float, float, float]:
    """Where the image lies in its pixels: a reduced one ends within its last column and row, as stored."""
    across, down = (part or (0, 0, *rgb.size))[2:]
    if part is not None and method in _SWAPPING:
        across, down = down, across
    left = rgb.width - across if part is not None and method in _FROM_RIGHT else 0
    top = rgb.height - down if part is not None and method in _FROM_BELOW else 0
    return left, top, left + across, top + down


def difference_hash(image: Image.Image) -> int:
    """64-bit difference hash (dHash) of an RGB image as a signed integer, for near-duplicates.

    Each bit says whether a cell of a 9 x 8 thumbnail in grey is darker than its right neighbour. Copies at
    other sizes or compressions differ in a few bits, other images in about 32.
    Source: N. Krawetz, "Kind of Like That", 2013.
    """
    thumbnail = image.resize((9, 8), Image.Resampling.BOX, reducing_gap=2.0).convert("L")
    cells = np.asarray(thumbnail, dtype=np.int16)
    bits = np.packbits((cells[:, 1:] > cells[:, :-1]).ravel())
    return int.from_bytes(bits.tobytes(), "big", signed=True)


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ZeroSizeError("the image has 0 bytes")
    # Pillow's own limit is one number for the whole process: lifted only while a header is read, so
    # that `max_pixels` decides, below as well as above it.
    with _open_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            if data.startswith(_SIGNATURES):
                raise TruncatedImageError(
                    f"{len(data)} bytes starting {data[:8]!r}: the header is damaged or cut short"
                ) from error
            message = f"{len(data)} bytes starting {data[:16]!r} are no image that Pillow knows"
            raise NotAnImageError(message) from error
        except Exception as error:  # a known signature with a broken header
            raise TruncatedImageError(f"broken image header ({error})") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ZeroSizeError(f"{_described(image)}: both sides must be at least 1 px")
    if width * height > max_pixels:
        raise DecompressionBombError(
            f"{_described(image)}: {width * height:,} pixels, the limit is {max_pixels:,} (max_pixels)"
        )


def _from_array(array: np.ndarray) -> Image.Image:
    form = f"array of shape {array.shape} and dtype {array.dtype}"
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{form}: give uint8 (0 to 255), height x width x 3 in RGB order")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(f"{form}: give height x width x 3 (RGB), x 4 (RGBA) or height x width")
    if 0 in array.shape:
        raise ZeroSizeError(f"{form}: both sides must be at least 1 px")
    if array.dtype == np.uint16:
        array = _scaled(array, 65535)
    return Image.fromarray(np.ascontiguousarray(array))


def _upright(image: Image.Image) -> tuple[Image.Image, Image.Transpose | None]:
    """EXIF orientation applied, and how. Broken EXIF data counts as none: the pixels are still good."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # any error, and "Corrupt EXIF data" where warnings are errors
        return image, None
    method = _ORIENTATIONS.get(orientation) if isinstance(orientation, int) else None
    return (image, None) if method is None else (image.transpose(method), method)


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_deep_grey(np.asarray(image))).convert("RGB")
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        if mode in ("RGBa", "La"):  # premultiplied: La converts only to LA
            image = image.convert("LA" if mode == "La" else "RGBA")
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _deep_grey(values: np.ndarray) -> np.ndarray:
    """Grey of 16 or 32 bits or floats -> uint8 (H, W)."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _scaled(values, 65535)
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    if values.dtype.kind in "iu" and low >= 0 and high <= 65535:
        return _scaled(numbers, 65535)  # a 16-bit file that Pillow opened as 32-bit
    if values.dtype.kind == "f" and low >= 0 and high <= 255:
        return _scaled(numbers, 1.0 if high <= 1 else 255.0)
    return _scaled(numbers - low, (high - low) or 1.0)


def _scaled(values: np.ndarray, greatest: float) -> np.ndarray:
    return np.rint(values * np.float32(255 / greatest)).clip(0, 255).astype(np.uint8)


def _described(image: Image.Image) -> str:
    kind = getattr(image, "format", None) or "image"
    return f"{kind} of {image.size[0]} x {image.size[1]} px, mode {image.mode}"
