"""`sspsam COMMAND ...`: finds the command's module and hands the arguments over.

Each command is also `python -m jobs.COMMAND`; modules are imported on first use, so that
`sspsam segment` starts without Ray.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError

from jobs.options import arguments

#: command -> (module, one line of help), in the order in which people meet them.
COMMANDS = {
    "segment": ("jobs.segment", "segment one image by phrases"),
    "annotate": ("jobs.annotate", "image/caption shards in, mask annotations out, on Ray Data"),
    "compact": (
        "jobs.compact",
        "a file a shard in place of one a chunk, for datasets of earlier versions",
    ),
    "report": ("jobs.report", "one HTML page and a contact sheet from an annotation dataset"),
    "view": ("jobs.view", "browse, filter and review an annotation dataset in the browser"),
    "stats": ("jobs.stats", "counts, phrases, signal quantiles; compare two runs"),
    "agree": ("jobs.agree", "a dataset with how far a second one's masks agree with its own"),
    "calibrate": ("jobs.calibrate", "how probable it is that a mask is right, from truth or verdicts"),
    "audit": ("jobs.audit", "look at a drawn sample of masks, and learn how right all of them are"),
    "curate": ("jobs.curate", "filter, deduplicate, balance and split an annotation dataset"),
    "export": ("jobs.export", "COCO, YOLO, Label Studio, WebDataset, Hugging Face, ..."),
    "import": ("jobs.import_", "ground truth of another format into the annotation schema"),
    "train": ("jobs.train", "train or fine-tune SSP-SAM"),
    "evaluate": ("jobs.evaluate", "score a model on a benchmark the way the field does"),
    "models": ("jobs.models", "models for --model: known ones, or a repository's checkpoints"),
    "convert": ("jobs.convert", "an authors' checkpoint to a folder with safetensors"),
}


def app() -> App:
    """All commands, for help, near misses and completion; a command is imported when it is needed."""
    found = App(
        name="sspsam",
        help="Open-vocabulary mask annotations from image/caption shards: SSP-SAM on Ray Data.",
        version=lambda: f"sspsam {version('sspsam')}",
        version_flags=["--version", "-V"],
        result_action="return_value",
    )
    for place, (name, (module, text)) in enumerate(COMMANDS.items()):
        function = "import_" if name == "import" else name
        found.command(f"{module}:{function}", name=name, help=text, sort_key=place)
    found.register_install_completion_command()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; 2 for a command that does not exist."""
    words = arguments(argv)
    if words and words[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[words[0]][0]).main(words[1:]))
    try:
        app()(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"sspsam: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
