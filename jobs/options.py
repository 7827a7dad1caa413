"""What the commands share: reading flags, reporting errors, printing results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import App, CycloptsError, Group, Parameter

from sspsam.errors import ConfigError, SSPSAMError
from sspsam.storage.secrets import redact

if TYPE_CHECKING:
    from pipeline.view import ViewConfig

#: Our own packages: one of their modules that is missing is a fault, not an extra to install.
_OURS = ("sspsam", "pipeline", "jobs")


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which schedulers send some seconds before they kill: stop like Ctrl-C does."""


_ARGUMENTS = "SSPSAM_ARGUMENTS"

#: A dataclass whose fields are flags of their own.
FLAT = Parameter(name="*")


def flags_of(*configs: type, without: Sequence[str] = (), **changed: Any) -> Any:
    """A dataclass with the fields of `configs`, each None unless its flag is given.

    For commands where flags win over a file or a recipe, which must know what was given.

    Args:
        without: fields that are no flags.
        changed: cyclopts annotations by field name, for a field whose flag is not its type's.
    """
    found = []
    for config in configs:
        hints = get_type_hints(config)
        for one in dataclasses.fields(config):
            if one.name in without:
                continue
            told = one.metadata["help"]
            if one.default not in (None, "", False) and isinstance(one.default, (str, int, float)):
                told += f" (default: {one.default})"
            kind = changed.get(one.name, hints[one.name])
            found.append((one.name, Annotated[kind | None, Parameter(help=told)], None))
    # Without a module of its own it would count as one of Python's types, which cyclopts does not flatten.
    return dataclasses.make_dataclass("Flags", found, frozen=True, namespace={"__module__": __name__})


def given(flags: Any) -> dict[str, Any]:
    """The values of a `flags_of` dataclass that were given; flags: None if none was."""
    return {name: value for name, value in (vars(flags) if flags else {}).items() if value is not None}


def arguments(argv: Sequence[str] | None) -> list[str]:
    """`argv`, or the arguments of this process if None.

    Every user can read those in the list of processes. So if they hold keys or passwords, the process begins
    anew with what it was given in its environment instead.
    """
    if argv is not None:
        return list(argv)
    if kept := os.environ.pop(_ARGUMENTS, None):
        return list(json.loads(kept))
    words = sys.argv[1:]
    shown = [redact(word) for word in words]
    if shown != words:
        os.environ[_ARGUMENTS] = json.dumps(words)
        command = sys.orig_argv[1 : len(sys.orig_argv) - len(words)]
        os.execv(sys.executable, [sys.executable, *command, *shown])
    return words


def with_kind(words: Sequence[str]) -> list[str]:
    """`--retry-errors` alone means any kind."""
    found = list(words)
    for at, word in reversed(list(enumerate(found))):
        if word == "--retry-errors" and (at + 1 == len(found) or found[at + 1].startswith("-")):
            found.insert(at + 1, "any")
    return found


def command_app(command: Callable[..., int], epilogue: str = "") -> App:
    """`sspsam NAME`: the function's parameters are its flags, its docstring is its help."""
    return App(
        name=f"sspsam {command.__name__.rstrip('_')}",
        default_command=command,
        help_epilogue=epilogue,
        help_format="plaintext",
        group_commands=Group("Commands", show=False),  # the only one is --help itself
        version_flags=[],
        default_parameter=Parameter(
            negative_iterable="",
            negative_none="",
            allow_repeating=True,
            show_default=lambda value: None if value in ((), {}, None) or value is False else str(value),
        ),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )


def run(command: Callable[..., int], argv: Sequence[str] | None, extras: str, epilogue: str = "") -> int:
    """What `command` returns, or, with one line on stderr: 2 for a wrong flag or dataset, 130 if interrupted
    by Ctrl-C, 143 by SIGTERM.

    Args:
        argv: the arguments; those of this process if None.
        extras: those of pyproject.toml that the command needs, as pip takes them.
    """
    app = command_app(command, epilogue)
    before = signal.getsignal(signal.SIGTERM)
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(arguments(argv), exit_on_error=False, print_error=False)
        return int(code or 0)
    except (CycloptsError, SSPSAMError) as error:
        problem = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OURS:
            raise
        problem = f"needs {error.name}: pip install 'sspsam[{extras}]'"
    except KeyboardInterrupt as stop:
        return stopped(stop, app.name[0])
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)
    print(f"{app.name[0]}: {redact(problem)}", file=sys.stderr)
    return 2


def stopped(stop: KeyboardInterrupt, name: str, mend: str = "") -> int:
    """Say how command `name` was stopped, and what to do about it. Returns the exit code."""
    word, code = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
    print(f"{name}: {word}{mend}", file=sys.stderr)
    return code


def _terminate(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut short what the first one began
    raise Terminated


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def check_memory(memory_mb: int) -> None:
    """Raises ConfigError if it is less than DuckDB works with."""
    if memory_mb < 64:
        raise ConfigError(f"--memory-mb {memory_mb}: at least 64")


def serve_page(config: ViewConfig, title: str, in_browser: bool) -> None:
    """Serve the page of a dataset until Ctrl-C; say where it is, and open it there if asked to."""
    from pipeline.view import serve

    def announce(url: str) -> None:
        print(f"{title} at {url}  (Ctrl-C ends it)", flush=True)
        if in_browser:
            webbrowser.open(url)

    with contextlib.suppress(KeyboardInterrupt):
        serve(config, announce)


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
