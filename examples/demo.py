"""`make demo`: annotate the example shards, score the masks against their truth, make the pictures.

Every step is a command that a user would type; each is printed before it runs.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
import warnings
from pathlib import Path

EXAMPLES = Path(__file__).parent


def run(command: str, *arguments: str | Path) -> None:
    """Run `sspsam COMMAND ...` in this process and stop the demo if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ sspsam {command} {shlex.join(words)}", flush=True)
    code = importlib.import_module("jobs.cli").main([command, *words])
    if code:
        sys.exit(code)


def is_outdated(output: Path) -> bool:
    """Whether `output` was annotated by another version of the bundled model."""
    from sspsam.checkpoint import fingerprint

    manifest = output / "_run.json"
    return manifest.exists() and json.loads(manifest.read_text())["model"]["sha256"] != fingerprint("tiny")


def main(folder: str = "demo") -> int:
    """Annotate `examples/shards` into FOLDER/output; the same command again resumes."""
    from examples.score import print_scores, score

    os.environ["RAY_ADDRESS"] = "local"  # a demo leaves the clusters of this machine alone
    destination = Path(folder)
    output = destination / "output"
    shards, truth = EXAMPLES / "shards", EXAMPLES / "truth"
    run("annotate", shards, output, *(["--overwrite"] if is_outdated(output) else []))
    run(
        "report",
        output,
        "--truth",
        truth,
        "-o",
        destination / "report.html",
        "--sheet",
        destination / "sheet.png",
    )
    print("\nAgainst the true masks of these held-out scenes:")
    print_scores(score(output, truth))
    print(f"\nLook at  {destination / 'report.html'}  (page)  or  {destination / 'sheet.png'}  (picture)")
    print(f"Browse   .venv/bin/sspsam view {output}")
    return 0


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)  # Ray's own, not the reader's concern
    sys.exit(main(*sys.argv[1:]))
