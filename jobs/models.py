"""`sspsam models [SOURCE]`: the models that are known, or the checkpoints of a repository on the hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from jobs.options import print_json, run
from sspsam.errors import CheckpointError, ConfigError, UnknownModelError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a source that cannot be listed."""
    return run(models, argv, "hub")


def models(source: str | None = None, /, *, json: bool = False) -> int:
    """Models for --model: what they were trained on, and what of them was verified.

    Args:
        source: hf://org/repo[@revision][/folder]: list the checkpoints in it, with sizes
        json: print JSON
    """
    if source is not None:
        return _list(source, json)
    from rich.console import Console
    from rich.padding import Padding

    from sspsam.known_models import KNOWN_MODELS, PUBLISHED

    if json:
        print_json([asdict(model) for model in KNOWN_MODELS])
        return 0
    console = Console(highlight=False)
    for model in KNOWN_MODELS:
        console.print(f"--model {model.name}", markup=False)
        fields = asdict(model)
        for name in ("about", "trained_on", "verified", "unverified"):
            label = {"about": "", "unverified": "not verified: "}.get(name, f"{name.replace('_', ' ')}: ")
            if fields[name] != "nothing":
                console.print(Padding(f"{label}{fields[name]}", (0, 0, 0, 4)), markup=False)
        console.print()
    console.print(
        f"Any other: a folder, .pth or .safetensors file, hf://org/repo[@revision][/file], URL.\n"
        f"`sspsam models {PUBLISHED}` asks the hub which checkpoints are there.",
        markup=False,
    )
    return 0


def _list(source: str, json: bool) -> int:
    from sspsam.storage.downloads import size_text
    from sspsam.storage.hub import HubModel, list_files
    from sspsam.storage.local_copies import UnreachableError

    model = HubModel.parse(source)
    if model is None:
        raise ConfigError(f"{source}: give hf://org/repo, or nothing to list the known models")
    try:
        sizes = list_files(model)
    except UnreachableError as error:
        raise CheckpointError(f"{source} cannot be reached: {error}") from error
    found = {model.url(name): sizes[name] for name in model.checkpoints(sizes)}
    if not found:
        raise UnknownModelError(f"{source} holds no checkpoint among its {len(sizes):,} files")
    if json:
        print_json([{"model": url, "bytes": size} for url, size in found.items()])
    else:
        print("\n".join(f"--model {url}  ({size_text(size)})" for url, size in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
