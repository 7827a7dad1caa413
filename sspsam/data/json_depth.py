"""A JSON stream that ends with an error where it nests deeper than data does.

ijson keeps the whole path of each level: 100,000 brackets, a file of 100 kB, cost it 25 GB.
"""

from __future__ import annotations

import re
from typing import IO

import ijson
import numpy as np

_DEEPEST = 1000
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(\\?\Z|")', re.DOTALL)


class Nested:
    """`file`, for ijson; `read` raises ijson.JSONError beyond a depth of 1,000."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._depth, self._open = file, 0, b""

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        last = b'"'  # a string that goes on in the next piece begins there with what is open of it

        def cut(found: re.Match[bytes]) -> bytes:
            nonlocal last
            last = found[1]
            return b""

        plain = np.frombuffer(_STRING.sub(cut, self._open + data), np.uint8) | 32
        self._open = b"" if last == b'"' else b'"' + last
        # "[" and "{", "]" and "}" differ in the bit that is set above.
        depth = self._depth + np.cumsum((plain == ord("{")).astype(int) - (plain == ord("}")))
        if len(depth):
            self._depth = int(depth[-1])
            if depth.max() > _DEEPEST:
                raise ijson.JSONError(f"it nests deeper than {_DEEPEST:,} levels")
        return data
