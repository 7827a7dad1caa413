"""Which model a person gets who names none: asked on a terminal, with what the download weighs."""

from __future__ import annotations

import sys

from sspsam.errors import SSPSAMError


def choose_model() -> str:
    """The published weights if somebody at a terminal wants them or has them; else the bundled model.

    Where no person can answer (stdin or stderr is no terminal) nothing is asked, looked up or fetched.
    """
    from sspsam.checkpoint import default_model
    from sspsam.known_models import PUBLISHED
    from sspsam.storage.downloads import weight_text
    from sspsam.storage.hub import HubModel, downloaded, list_files
    from sspsam.storage.local_copies import UnreachableError

    model = HubModel.parse(PUBLISHED)
    if model is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return default_model()
    try:
        if len(here := downloaded(model)) == 1:
            _say(f"model {model.url(here[0])}, downloaded before (--model takes another)")
            return model.url(here[0])
        _say(f"No --model: looking at {PUBLISHED} for weights that know photographs ...")
        sizes = list_files(model)
    except (SSPSAMError, UnreachableError) as error:
        _say(f"They cannot be had now: {error}")
        return default_model()
    found = model.checkpoints(sizes)
    for number, name in enumerate(found, 1):
        _say(f"  {number}  {model.url(name)}  ({weight_text(sizes[name])})")
    if found:
        _say("Which to download, once? Its number, or Enter for the demo model: ", end="")
        answer = sys.stdin.readline().strip()
        if answer.isdecimal() and 0 < int(answer) <= len(found):
            return model.url(found[int(answer) - 1])
    return default_model()


def _say(text: str, end: str = "\n") -> None:
    print(text, file=sys.stderr, end=end, flush=True)
