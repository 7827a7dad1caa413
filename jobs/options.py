"""What several commands share: options, how errors are said, and how what was written is printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sspsam.errors import ConfigError, SSPSAMError

#: Our own packages: one of their modules that is missing is a fault, not an extra to install.
_OURS = ("sspsam", "pipeline", "jobs")


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


def exit_code(command: str, extras: str, work: Callable[[], int]) -> int:
    """What `work` returns; 2, with one line on stderr, for a wrong flag or dataset; 130 if interrupted.

    extras: those of pyproject.toml that the command needs, as pip takes them.
    """
    try:
        return work()
    except SSPSAMError as error:
        problem = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OURS:
            raise
        problem = f"needs {error.name}: pip install 'sspsam[{extras}]'"
    except KeyboardInterrupt:
        print(f"sspsam {command}: interrupted", file=sys.stderr)
        return 130
    print(f"sspsam {command}: {problem}", file=sys.stderr)
    return 2


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_written(command: str, target: str, manifest: Mapping[str, Any], summary: str, unit: str) -> int:
    """Say what was written to `target` and how many `unit` ("images") were left out: 1 if any, else 0.

    summary: of the manifest, for people; empty to print the manifest itself as JSON.
    """
    if summary:
        print(f"{target}: {summary} in {manifest['seconds']:.1f} s")
    else:
        print_json(manifest)
    skipped = manifest[f"{unit}_skipped"]
    if not skipped:
        return 0
    print(
        f"sspsam {command}: {skipped:,} {unit} could not be read and are left out:"
        f" {target.rstrip('/')}/_skipped.jsonl says why",
        file=sys.stderr,
    )
    return 1
