"""From phrases to the closed list of categories that most formats need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow.compute as pc

from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.vocabulary import head_nouns, normalise

#: The one category of --categories single.
SINGLE = "object"


@dataclass(frozen=True)
class Categories:
    """`names`: the most frequent first, then by the alphabet. `counts`: masks of each."""

    kind: str
    names: tuple[str, ...]
    counts: tuple[int, ...]
    _heads: Mapping[str, str] = field(default_factory=dict, repr=False)
    _index: Mapping[str, int] = field(default_factory=dict, repr=False)

    def of(self, phrase: str) -> int:
        """Position in `names` of a phrase's category."""
        if self.kind == "single":
            return 0
        name = normalise(phrase)
        return self._index[self._heads.get(name, name)]


def read_categories(dataset: AnnotationDataset, kind: str) -> tuple[Categories, Counter[str]]:
    """The categories of all masks with a target, and the images of each split that have no error.

    A dataset that was never split is one split, "train". Reads phrases only, not masks.
    """
    phrases: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    columns = ["status", "split"] if dataset.curated else ["status"]
    for file in dataset.files:
        for table in dataset.read_fields(file, ["phrase", "has_target"], columns):
            good = table.filter(pc.not_equal(table["status"], "error"))
            names = good["split"].to_pylist() if dataset.curated else ["train"] * good.num_rows
            splits.update(name or "train" for name in names)
            for row in good["annotations"].to_pylist():
                found = (one for one in row or () if one and one["has_target"])
                phrases.update(normalise(one["phrase"] or "") for one in found)
    if kind == "single":
        return Categories(kind, (SINGLE,), (phrases.total(),)), splits
    heads = dict(zip(phrases, head_nouns(phrases), strict=True)) if kind == "head" else {}
    counts: Counter[str] = Counter()
    for phrase, count in phrases.items():
        counts[heads.get(phrase, phrase)] += count
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    names = tuple(name for name, _ in ranked)
    index = {name: place for place, name in enumerate(names)}
    return Categories(kind, names, tuple(count for _, count in ranked), heads, index), splits
