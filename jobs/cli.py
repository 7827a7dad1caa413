"""`sspsam COMMAND ...`: finds the command's module and hands the arguments over.

Each command is also `python -m jobs.COMMAND`; modules are imported only when asked for, so that
`sspsam segment` starts without Ray.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

#: command -> (module, one line of help), in the order in which people meet them.
COMMANDS = {
    "segment": ("jobs.segment", "segment one image by phrases"),
    "annotate": ("jobs.annotate", "image/caption shards in, mask annotations out, on Ray Data"),
    "report": ("jobs.report", "one HTML page and a contact sheet from an annotation dataset"),
    "view": ("jobs.view", "browse, filter and review an annotation dataset in the browser"),
    "stats": ("jobs.stats", "counts, phrases, signal quantiles; compare two runs"),
    "curate": ("jobs.curate", "filter, deduplicate, balance and split an annotation dataset"),
    "export": ("jobs.export", "COCO, YOLO, Label Studio, WebDataset, Hugging Face, ..."),
    "import": ("jobs.import_", "ground truth of another format into the annotation schema"),
    "train": ("jobs.train", "train or fine-tune SSP-SAM"),
    "evaluate": ("jobs.evaluate", "score a model on a benchmark the way the field does"),
    "convert": ("jobs.convert", "an authors' checkpoint to a folder with safetensors"),
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: sspsam COMMAND [options]", "", *lines, "", "sspsam COMMAND --help tells more."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; 2 for a command that does not exist."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name in ("-V", "--version"):
        from importlib.metadata import version

        print(f"sspsam {version('sspsam')}")
        return 0
    if name not in COMMANDS:
        print(f"sspsam: no command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    return int(importlib.import_module(COMMANDS[name][0]).main(rest))


if __name__ == "__main__":
    sys.exit(main())
