"""Fields of settings that are flags, their values as they declare them, and checks that name the flag."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sspsam.errors import ConfigError


def option(default: Any, help_: str) -> Any:
    """A dataclass field that is also a flag; `help_` states the unit."""
    return dataclasses.field(default=default, metadata={"help": help_})


def flag(name: str) -> str:
    """`chunk_size` -> `--chunk-size`; INPUT and OUTPUT as they stand in the usage line."""
    return name.upper() if name in ("input", "output") else "--" + name.replace("_", "-")


def require(condition: bool, name: str, message: str) -> None:
    """Raise ConfigError of the flag `name` and `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{name} {message}")


def check_settings(config: Any, **least: float) -> None:
    """Raise ConfigError, naming the flag, for a Literal field of another value or a number that is too small.

    least: the smallest value of numeric fields; None is not checked.
    """
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            known = ", ".join(map(str, get_args(kind)))
            raise ConfigError(f"{flag(name)} is {getattr(config, name)!r}, not one of {known}")
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise ConfigError(f"{flag(name)} {value}: at least {bound}")


def declared(one: dataclasses.Field[Any], value: Any) -> Any:
    """`value` as the type that the field `one` declares; the command line and YAML bring strings.

    Raises ConfigError that names the flag.
    """
    kind = str(one.type)
    try:
        if value is None or (kind.startswith("bool") and isinstance(value, bool)):
            return value
        if kind.startswith("dict"):
            return json.loads(value) if isinstance(value, str) else value
        if kind.startswith("bool"):
            raise ValueError("give true or false")
        if kind.startswith("int") and isinstance(value, float) and not value.is_integer():
            raise ValueError("not a whole number")
        if kind.startswith(("int", "float")):
            return _number(value, int if kind.startswith("int") else float)
        return str(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{flag(one.name)} is {value!r}: {error}") from error


def _number(value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("give a whole number" if kind is int else "give a number")
    return number
