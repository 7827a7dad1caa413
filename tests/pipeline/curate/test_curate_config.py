"""Curation's options: the split, and what is said of wrong ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.curate import CurateConfig
from pipeline.curate.curate_config import parse_split
from pipeline.curate.rewrite import split_of
from sspsam.errors import ConfigError


def test_splits_follow_the_key_alone() -> None:
    split = parse_split("train=0.8, val=0.2,test=0")
    names = Counter(split_of(f"image {number}", split, 0) for number in range(2000))
    assert 1530 < names["train"] < 1670
    assert names["test"] == 0
    assert split_of("image 7", split, 0) == split_of("image 7", split, 0)
    assert any(split_of(str(i), split, 0) != split_of(str(i), split, 1) for i in range(20))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("merge_iuo: 0.9", "did you mean 'merge_iou'"),
        ("merge_iou: 1.5", "--merge-iou 1.5"),
        ("merge_iou: yes", "not of the kind"),
        ("where: [1]", "list of SQL"),
        ("split: {train: 0.5}", "add up to 0.5"),
        ("split: {../x: 1}", "names are letters"),
        ("phash_distance: 20", "from 0 .* to 8"),
        ("reviews: some", "one of apply, accepted, ignore"),
        ("[1, 2]", "option: value"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_wrong_config_names_the_option(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "curate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        CurateConfig.from_yaml(str(path))
