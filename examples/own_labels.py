"""The loop: label new images, look at 200 masks, keep what may be promised, train on it, label again.

    python -m examples.own_labels INPUT WORK --calibration c.json [--precision 0.8] [--truth TRUTH]

Every step is a command that a user would type, printed before it runs. The same command again goes on: a step
that is done is left as it is. The audit ends with Ctrl-C when its queue is empty. TRUTH, true masks of some
of the images drawn at random, takes the place of a person; what was gained is then measured on it too.
`docs/trust.md` tells what to expect: masks that a model is sure of teach it little.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.demo import run


def is_done(manifest: Path) -> bool:
    """Whether a command wrote its folder to the end."""
    return manifest.exists() and json.loads(manifest.read_text()).get("complete", False)


def improve(options: argparse.Namespace) -> None:
    """All steps; ends with the exit code of the one that fails."""
    work, chosen = options.work, ("--precision", str(options.precision))
    labels, kept, trained, again = (work / name for name in ("labels", "kept", "trained", "again"))
    annotate = ("--verify", options.verify, *shlex.split(options.annotate))
    run(
        "annotate",
        options.input,
        labels,
        "--model",
        options.model,
        "--calibration",
        options.calibration,
        *annotate,
    )
    if not is_done(kept / "_curation.json"):
        if options.truth is None:
            run("audit", labels, "--budget", str(options.budget), *chosen)
            run("curate", labels, kept, *chosen)
        else:
            run("curate", labels, kept, *chosen, "--truth", options.truth)
    start = ("--recipe", options.recipe, "--from", options.model)
    run("train", trained, "--data", kept, "--split", "all", *start, *shlex.split(options.train))
    run("annotate", options.input, again, "--model", trained / "model", *annotate)
    run("stats", labels, "--compare", again)
    for dataset in (labels, again) if options.truth else ():
        run("stats", dataset, "--compare", options.truth)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("input", help="image/caption shards")
    parser.add_argument("work", type=Path, help="folder of all that is written")
    parser.add_argument("--calibration", required=True, help="file of `sspsam calibrate`, from other images")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--verify", default="none", help="what the calibration needs: none, fast or full")
    parser.add_argument("--precision", type=float, default=0.8)
    parser.add_argument("--budget", type=int, default=200, help="masks to look at")
    parser.add_argument("--truth", help="true masks of some of the images, in place of an audit")
    parser.add_argument("--recipe", default="finetune-towers", help="of `sspsam train`")
    parser.add_argument("--annotate", default="", help="more flags of `sspsam annotate`, one word")
    parser.add_argument("--train", default="", help="more flags of `sspsam train`, one word")
    improve(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
