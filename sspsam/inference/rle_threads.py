"""pycocotools' RLE encoder, called so that other threads run meanwhile.

Its Python functions keep the interpreter's lock: half a millisecond a mask of 1280 x 853, in which no thread
can launch work on a device. Its C functions (cocodataset/cocoapi, `common/maskApi.h`) are exported by its
extension module; where they are not, or do not answer as its Python functions do, those are used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import _mask
from pycocotools import mask as coco_mask


class _Runs(ctypes.Structure):
    """`RLE` of maskApi.h."""

    _fields_ = (
        ("h", ctypes.c_ulong),
        ("w", ctypes.c_ulong),
        ("m", ctypes.c_ulong),
        ("counts", ctypes.POINTER(ctypes.c_uint)),
    )


def encode_columns(masks: NDArray[np.uint8] | NDArray[np.bool_]) -> list[dict[str, Any]]:
    """N RLEs, `counts` in bytes, of (N, width, height) bool or uint8 of 0 and 1."""
    masks = np.ascontiguousarray(masks).view(np.uint8)
    library = _exported()
    return _by_python(masks) if library is None else _by_c(library, masks)


def encode_counts(counts: Sequence[NDArray[np.uint32]], width: int, height: int) -> list[dict[str, Any]]:
    """RLEs, `counts` in bytes, of run lengths: each of zeros and ones in turn, together width x height."""
    library = _exported()
    if library is None:
        plain = [{"size": [height, width], "counts": one.tolist()} for one in counts]
        return list(coco_mask.frPyObjects(plain, height, width))
    rles = []
    for one in counts:
        lengths = np.ascontiguousarray(one).ctypes.data_as(ctypes.POINTER(ctypes.c_uint))
        rles.append(_text(library, _Runs(height, width, len(one), lengths)))
    return rles


@cache
def _exported() -> ctypes.CDLL | None:
    """The extension module as a C library, once it has given the right answer."""
    try:
        library = ctypes.CDLL(_mask.__file__)
        library.rleEncode.argtypes = [ctypes.POINTER(_Runs), ctypes.c_void_p, *[ctypes.c_ulong] * 3]
        library.rleEncode.restype = None
        library.rleToString.argtypes = [ctypes.POINTER(_Runs)]
        library.rleToString.restype = ctypes.c_void_p
        library.rlesInit.argtypes = [ctypes.POINTER(ctypes.POINTER(_Runs)), ctypes.c_ulong]
        library.rlesFree.argtypes = [ctypes.POINTER(ctypes.POINTER(_Runs)), ctypes.c_ulong]
        library.rlesInit.restype = library.rlesFree.restype = None
    except (OSError, AttributeError):
        return None
    known = (np.add.outer(np.arange(90), np.arange(70) ** 2) % 11 < 4).astype(np.uint8)[None]
    return library if _by_c(library, known) == _by_python(known) else None


@cache
def _free() -> Any:
    """C's own: what rleToString gives is the caller's to free."""
    free = ctypes.CDLL(None).free
    free.argtypes, free.restype = [ctypes.c_void_p], None
    return free


def _by_c(library: ctypes.CDLL, masks: NDArray[np.uint8]) -> list[dict[str, Any]]:
    count, width, height = masks.shape
    runs = ctypes.POINTER(_Runs)()
    library.rlesInit(ctypes.byref(runs), count)
    try:
        library.rleEncode(runs, masks.ctypes.data, height, width, count)
        return [_text(library, runs[number]) for number in range(count)]
    finally:
        library.rlesFree(ctypes.byref(runs), count)


def _text(library: ctypes.CDLL, runs: _Runs) -> dict[str, Any]:
    """One mask's compressed runs."""
    text = library.rleToString(ctypes.byref(runs))
    rle = {"size": [runs.h, runs.w], "counts": ctypes.string_at(text)}
    _free()(text)
    return rle


def _by_python(masks: NDArray[np.uint8]) -> list[dict[str, Any]]:
    return list(coco_mask.encode(masks.transpose(2, 1, 0)))
