"""How a good input becomes a hostile one: bytes, JSON trees, values of Arrow types; all by a seed."""

from __future__ import annotations

import copy
import random
import struct
from typing import Any

import pyarrow as pa

TEXTS = (
    *(
        "",
        " ",
        "\x00",
        "a\x00b",
        "\n\r\t",
        "../../etc/passwd",
        "/etc/passwd",
        "file:///etc/passwd",
        "x" * 5000,
    ),
    *("\u202eevil\u202c", "'; drop table images; --", '"', "<script>alert(1)</script>", "%s%n", "𝕏" * 40),
    *(
        "\ufeff",
        "nan",
        "1e999",
        "-0",
        "http://127.0.0.1:1/x.jpg",
        "s3://",
        "://",
        "[",
        "[::1]",
        "~",
        "*?[]{}",
    ),
)
INTEGERS = (0, 1, -1, 2, 127, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, -(2**31))
FLOATS = (0.0, -0.0, -1.0, 0.5, 1.5, float("nan"), float("inf"), float("-inf"), 3e38, 1e-45)
#: What JSON can hold and no field expects, NaN and numbers beyond 64 bits too.
PLAIN = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": None},
    *INTEGERS,
    2**64,
    10**400,
    *FLOATS,
    *TEXTS,
    "\ud800",
)

_INSERTS = (
    *(
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\xff\xfe",
        b"\x00",
        b'"',
        b"\\u",
        b"\\ud800",
        b"9" * 5000,
        b"1e999",
    ),
    *(b"NaN", b"-", b",", b"\r", b"\xc3", b"\xef\xbb\xbf", b"\n" * 3, b"x" * 200_000),
)


def spoil_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, lengths, cuts, holes, repeats, swaps."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = _spoil_once(data, rng)
    return data


def _spoil_once(data: bytes, rng: random.Random) -> bytes:
    size = len(data)
    # Headers and footers say most, so most changes are there.
    at = min(
        size, rng.choice((rng.randrange(size + 1), rng.randrange(512), max(0, size - rng.randrange(1, 512))))
    )
    end = min(size, at + rng.choice((1, 4, 16, 512, max(1, size // 8))))
    other = rng.randrange(at, size + 1)
    field = struct.pack(rng.choice("<>") + "Q", rng.choice(INTEGERS) & (2**64 - 1))[
        : rng.choice((1, 2, 4, 8))
    ]
    part = data[at:end]
    put = {
        "random": rng.randbytes(end - at),
        "gone": b"",
        "zeros": bytes(end - at),
        "repeated": part * rng.choice((2, 4)),
        "bit": bytes([part[0] ^ 1 << rng.randrange(8)]) + part[1:] if part else b"x",
    }
    way = rng.choice((*put, "cut", "field", "swapped"))
    if way == "cut":
        return data[:at]
    if way == "field":
        return data[:at] + field + data[at + len(field) :]
    if way == "swapped" and other > end:
        return data[:at] + data[other : other + end - at] + data[end:other] + part + data[other + end - at :]
    return data[:at] + put.get(way, b"") + data[end:]


def spoil_text(data: bytes, rng: random.Random) -> bytes:
    """As `spoil_bytes`, or with what breaks readers of text: nesting, bad UTF-8, NUL, quotes, numbers."""
    if rng.random() < 0.5:
        return spoil_bytes(data, rng)
    at = rng.randrange(len(data) + 1)
    insert = rng.choice(_INSERTS)
    return data[:at] + insert + data[at:]


def spoil_tree(tree: Any, rng: random.Random) -> Any:
    """A copy of a JSON tree in which up to three places hold what no field expects, or are gone."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        inside = tree
        while True:
            places: list[Any] = list(inside if isinstance(inside, dict) else range(len(inside)))
            if not places:
                break
            place = rng.choice(places)
            child = inside[place]
            if isinstance(child, dict | list) and child and rng.random() < 0.85:
                inside = child
                continue
            if rng.random() < 0.15:
                del inside[place]
            else:
                inside[place] = rng.choice(PLAIN)
            break
    return tree


def hostile_value(kind: pa.DataType, rng: random.Random) -> Any:
    """A value that a column of this type can hold, and that no honest writer puts there."""
    value: Any = rng.choice(TEXTS)
    if rng.random() < 0.15:
        value = None
    elif pa.types.is_struct(kind):
        value = {child.name: hostile_value(child.type, rng) for child in kind}
    elif pa.types.is_fixed_size_list(kind):
        value = [hostile_value(kind.value_type, rng) for _ in range(kind.list_size)]
    elif pa.types.is_list(kind):
        value = [hostile_value(kind.value_type, rng) for _ in range(rng.choice((0, 1, 3)))]
    elif pa.types.is_boolean(kind):
        value = rng.random() < 0.5
    elif pa.types.is_integer(kind):
        limit = 2 ** (kind.bit_width - 1)
        value = rng.choice([number for number in INTEGERS if -limit <= number < limit])
    elif pa.types.is_floating(kind):
        value = rng.choice(FLOATS)
    elif pa.types.is_binary(kind):
        value = rng.randbytes(rng.choice((0, 3, 40)))
    return value


def spoil_value(value: Any, kind: pa.DataType, rng: random.Random) -> Any:
    """`value` of an Arrow type with one hostile place somewhere inside it."""
    if pa.types.is_struct(kind) and isinstance(value, dict) and rng.random() < 0.9:
        child = rng.choice(list(kind))
        return {**value, child.name: spoil_value(value.get(child.name), child.type, rng)}
    if (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], spoil_value(value[at], kind.value_type, rng), *value[at + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.4:
        return spoil_bytes(value.encode(), rng).decode("utf-8", "replace")
    return hostile_value(kind, rng)
