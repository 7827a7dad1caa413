"""What an answer to hostile input must be: fine, or one line of ours that names the file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

from sspsam.errors import SSPSAMError

_LONGEST = 20_000  # characters of a message


class FindingError(AssertionError):
    """The code under test did what it must not do with bad input."""


def judged(call: Callable[[], Any], *names: str) -> Any:
    """What `call` returns; None after an error of ours that names one of `names`."""
    try:
        return call()
    except SSPSAMError as error:
        check_message(str(error), *names)
    return None


def check_message(text: str, *names: str) -> None:
    if len(text) > _LONGEST:
        raise FindingError(f"a message of {len(text)} characters: {text[:300]}")
    if names and not any(name in text for name in names):
        raise FindingError(f"the message names none of {names}: {text}")
    if "Traceback" in text:
        raise FindingError(f"a traceback in the message: {text}")


def command(
    main: Callable[[list[str]], int], arguments: list[str], *names: str, codes: tuple[int, ...] = (0, 1)
) -> int:
    """Run a command in this process; 2 must come with one line on stderr that names one of `names`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as error:
            raise FindingError(f"{arguments}: SystemExit({error.code})") from error
    said = err.getvalue()
    if code == 2:
        check_message(said, *names)
        if said.count("\n") > 3:
            raise FindingError(f"{arguments}: more than one line: {said}")
    elif code not in codes:
        raise FindingError(f"{arguments}: exit code {code}: {said}")
    if "Traceback" in said + out.getvalue():
        raise FindingError(f"{arguments}: {said}")
    return code
