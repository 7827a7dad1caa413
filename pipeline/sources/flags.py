"""Settings from outside: types with a command-line syntax of their own, and YAML files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

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


def load_yaml(path: str) -> dict[str, Any]:
    """Options from a YAML file whose keys are the flags' names.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader without base 60: YAML 1.1 takes `replicas: 1:16` for the number 76."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not pattern.match("1:16")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in (("int", r"[-+]?[0-9]+"), ("float", r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?")):
        Loader.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list("-+.0123456789")
        )
    try:
        loaded = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path} cannot be read as YAML: {error}") from error
    if not isinstance(loaded, dict | None):
        raise ConfigError(f"--config {path}: expected `option: value` lines")
    return {str(name): value for name, value in (loaded or {}).items()}
