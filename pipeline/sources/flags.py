"""What settings dataclasses share: types with a command-line syntax of their own, and checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import CoercionError, Parameter, Token

from sspsam.errors import ConfigError


def json_object(_: Any, tokens: Sequence[Token]) -> dict[str, Any]:
    """The object that a flag such as --storage-options holds. Raises CoercionError."""
    flag = tokens[0].keyword or "--storage-options"
    try:
        options = json.loads(tokens[0].value)
    except ValueError as error:
        raise CoercionError(msg=f"{flag} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise CoercionError(msg=f"{flag} must be a JSON object, such as '{{\"anon\": true}}'")
    return options


#: Options of fsspec, or of a model: a JSON object on the command line.
StorageOptions = Annotated[
    Mapping[str, Any],
    Parameter(converter=json_object, n_tokens=1, accepts_keys=False, show_default=False),
]


def check_settings(config: Any, **least: float) -> None:
    """Raise ConfigError, naming the flag, for a Literal field of another value or a number that is too small.

    least: the smallest value of numeric fields; None is not checked.
    """
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            known = ", ".join(map(str, get_args(kind)))
            raise ConfigError(f"{_flag(name)} {getattr(config, name)!r}: one of {known}")
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise ConfigError(f"{_flag(name)} {value}: at least {bound}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
