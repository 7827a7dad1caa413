"""How good the masks of an annotation dataset are against the true ones: what `make demo` prints.

    python -m examples.score demo/output [examples/truth]

Both are datasets of the annotation schema. A phrase is looked up by its image's key and its own text;
phrases without truth (the parser found one that nobody labelled) are counted, not scored.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from sspsam.rle import check_rle

TRUTH = Path(__file__).parent / "truth"


@dataclass(frozen=True)
class Scores:
    """Measures over the phrases that have truth."""

    mean_iou: float  # over phrases with a target; an empty answer counts 0
    no_target_accuracy: float  # share of the phrases without a target that were answered so
    one_object: tuple[int, float]  # phrases that mean exactly one: their number, mean IoU
    by_kind: dict[str, tuple[int, float]]  # "name", "relation", ...: phrases, mean IoU
    phrases: int  # with a target and truth
    absent: int  # without a target, and truth
    unknown: int  # without truth
    images: int


def score(output: Path, truth: Path = TRUTH) -> Scores:
    """Compare `output` with `truth`.

    Raises:
        FileNotFoundError: one of them has no annotations; the message names the folder.
    """
    known = {
        (row["key"], phrase_key(annotation["phrase"])): (annotation, row)
        for row in _rows(truth)
        for annotation in row["annotations"] or ()
    }
    told = truth / "kinds.json"
    kinds: dict[str, dict[str, tuple[str, int]]] = json.loads(told.read_text()) if told.exists() else {}
    single: list[float] = []
    ious: dict[str, list[float]] = defaultdict(list)
    right: list[bool] = []
    unknown, keys = 0, set()
    for row in _rows(output):
        keys.add(row["key"])
        for answer in row["annotations"] or ():
            true, _ = known.get((row["key"], phrase_key(answer["phrase"])), (None, None))
            if true is None:
                unknown += 1
            elif true["has_target"]:
                kind, objects = kinds.get(row["key"], {}).get(phrase_key(answer["phrase"]), ("any", 0))
                ious[kind].append(_iou(answer, true))
                if objects == 1:
                    single.append(ious[kind][-1])
            else:
                right.append(not answer["has_target"])
    every = [value for values in ious.values() for value in values]
    return Scores(
        mean_iou=float(np.mean(every)) if every else float("nan"),
        no_target_accuracy=float(np.mean(right)) if right else float("nan"),
        one_object=(len(single), float(np.mean(single)) if single else float("nan")),
        by_kind={name: (len(v), float(np.mean(v))) for name, v in sorted(ious.items())},
        phrases=len(every),
        absent=len(right),
        unknown=unknown,
        images=len(keys),
    )


def print_scores(scores: Scores) -> None:
    table = Table("phrases", "count", "score", title=f"{scores.images} images")
    for name, (count, value) in scores.by_kind.items():
        table.add_row(f"{name}: mean IoU", str(count), f"{value:.3f}")
    count, value = scores.one_object
    table.add_row("exactly one object: mean IoU", str(count), f"{value:.3f}")
    table.add_row("all with a target: mean IoU", str(scores.phrases), f"{scores.mean_iou:.3f}")
    table.add_row("nothing there: accuracy", str(scores.absent), f"{scores.no_target_accuracy:.3f}")
    if scores.unknown:
        table.add_row("without truth, not scored", str(scores.unknown), "")
    Console().print(table)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    files = sorted((folder / "annotations").glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no annotations/*/*.parquet")
    for file in files:
        yield from pq.read_table(file, columns=["key", "annotations"]).to_pylist()


def phrase_key(phrase: str) -> str:
    """Phrases match whatever their case and leading article."""
    words = phrase.lower().split()
    return " ".join(words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words)


def _iou(answer: dict[str, Any], true: dict[str, Any]) -> float:
    if not answer["has_target"]:
        return 0.0
    pair = []
    for annotation in (answer, true):
        rle = annotation["segmentation"]
        check_rle(rle)
        pair.append({"size": rle["size"], "counts": rle["counts"].encode()})
    return float(coco_mask.iou([pair[0]], [pair[1]], [0])[0, 0])


def main(argv: Sequence[str]) -> int:
    if not argv:
        print(__doc__, file=sys.stderr)
        return 2
    print_scores(score(Path(argv[0]), Path(argv[1]) if len(argv) > 1 else TRUTH))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
