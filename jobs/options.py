"""Options that several commands share."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sspsam.errors import ConfigError


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage-options", default="{}", metavar="JSON", help="options of fsspec, as JSON")


def storage_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The object that --storage-options holds. Raises ConfigError."""
    try:
        options = json.loads(arguments.storage_options)
    except ValueError as error:
        raise ConfigError(f"--storage-options is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError("--storage-options must be a JSON object, such as '{\"anon\": true}'")
    return options
