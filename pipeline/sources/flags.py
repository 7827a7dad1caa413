"""Types of settings that are written on a command line in a way of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import CoercionError, Parameter, Token


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
