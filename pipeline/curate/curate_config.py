"""The settings of `sspsam curate`, from flags or a YAML file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.sources.flags import load_yaml
from pipeline.sources.settings import check_settings, option
from sspsam.errors import ConfigError

#: Bits by which two 64-bit perceptual hashes may differ and still be searched for in buckets.
MAX_PHASH_DISTANCE: Final = 8


@dataclass(frozen=True)
class CurateConfig:
    """The declarative part. Stages run in the order of the fields; each is off by default.

    Two runs with the same source, verdicts and config write the same rows.
    """

    reviews: Literal["apply", "accepted", "ignore"] = option(
        "apply",
        "verdicts: apply them (drop what was rejected), keep only what was accepted, or ignore",
    )
    drop_flagged: bool = option(False, "drop flagged images and masks too")
    min_target_pixels: int | None = option(
        None, "recompute has_target: at least this many target_pixels (pixels of the scoring square)"
    )
    keep_no_target: bool = option(False, "keep phrases without a target, as negatives")
    where: tuple[str, ...] = option(
        (), "SQL predicate over the columns of `images` and `masks`; null counts as false; repeatable"
    )
    precision: float | None = option(
        None,
        "keep what p_correct puts above the lowest threshold that has this precision, by audited verdicts",
    )
    confidence: float = option(0.95, "of --precision: how probable its promise is to hold")
    truth: str | None = option(
        None,
        "of --precision: true masks of images drawn at random from OUTPUT's, a dataset, in place of verdicts",
    )
    merge_iou: float | None = option(
        None, "merge masks of one image with at least this IoU; the phrases of the others become aliases"
    )
    phash_distance: int | None = option(
        None, "deduplicate images whose perceptual hashes differ in at most this many bits (0 to 8)"
    )
    max_per_phrase: int | None = option(None, "keep at most this many masks of one normalised phrase")
    cap_order: Literal["score", "hash"] = option(
        "score", "which masks of a capped phrase are kept: the best by score, or a uniform sample by hash"
    )
    keep_empty: bool = option(False, "keep images that have no mask left")
    split: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.9, "val": 0.1},
        metadata={"help": "shares NAME=SHARE,...; an image's split is a function of its key and --seed"},
    )
    seed: int = option(0, "seed of the split and of the hash order")

    def __post_init__(self) -> None:
        check_settings(self, min_target_pixels=0, max_per_phrase=1)
        if isinstance(self.where, str):
            object.__setattr__(self, "where", (self.where,))
        object.__setattr__(self, "where", tuple(self.where))
        for name in ("precision", "confidence"):
            share = getattr(self, name)
            if share is not None and not 0.5 <= share < 1:
                raise ConfigError(f"--{name} {share}: from 0.5 to below 1")
        if self.truth is not None and self.precision is None:
            raise ConfigError("--truth is what --precision rests on: give both")
        if self.merge_iou is not None and not 0 < self.merge_iou <= 1:
            raise ConfigError(f"--merge-iou {self.merge_iou}: an IoU above 0, at most 1")
        distance = self.phash_distance
        if distance is not None and not 0 <= distance <= MAX_PHASH_DISTANCE:
            raise ConfigError(f"--phash-distance {distance}: bits from 0 (equal) to {MAX_PHASH_DISTANCE}")
        object.__setattr__(self, "split", _checked_split(self.split))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> CurateConfig:
        """The config that a mapping (of the YAML file `where`) says. Raises ConfigError."""
        known = {one.name: one for one in fields(cls)}
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise ConfigError(f"{where}: no option {name!r}; {hint}")
            _check_type(f"{where}: {name}", value, str(known[name].type).replace('"', "'"))
        return cls(**{str(name): value for name, value in values.items()})

    @classmethod
    def from_yaml(cls, path: str) -> CurateConfig:
        """Read a YAML file of the fields above. Raises ConfigError naming the file."""
        return cls.from_mapping(load_yaml(path), f"--config {path}")

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON types, as `_curation.json` holds them."""
        return {**asdict(self), "where": list(self.where), "split": dict(self.split)}


@dataclass(frozen=True)
class CurateResources:
    """Resources; they do not change the result."""

    workers: int = option(max(1, os.cpu_count() or 1), "processes that read and write files, at most")
    memory_mb: int = option(1024, "memory limit of DuckDB in MiB; the rest spills to --scratch")
    scratch: str | None = option(None, "local folder for intermediate files (default: the system's)")
    rows_per_file: int = option(5000, "images per output file")

    def __post_init__(self) -> None:
        check_settings(self, workers=1, memory_mb=64, rows_per_file=1)
        if self.scratch is not None and not Path(self.scratch).is_dir():
            raise ConfigError(f"--scratch {self.scratch}: no such local folder")


def parse_split(text: str) -> dict[str, float]:
    """{"train": 0.9, "val": 0.1} of "train=0.9,val=0.1". Raises ConfigError."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise ConfigError(f"--split {text!r}: write it as train=0.9,val=0.1") from None
    return shares


def _checked_split(split: Mapping[str, float]) -> dict[str, float]:
    if not split or any(not name or not 0 <= share <= 1 for name, share in split.items()):
        raise ConfigError(f"--split {dict(split)}: needs names with shares from 0 to 1")
    if any(not name.replace("-", "_").isidentifier() for name in split):
        raise ConfigError(f"--split {dict(split)}: names are letters, digits, '-' and '_'")
    if abs(sum(split.values()) - 1) > 1e-6:
        raise ConfigError(f"--split {dict(split)}: the shares add up to {sum(split.values()):g}")
    return {str(name): float(share) for name, share in split.items()}


def _check_type(what: str, value: Any, annotation: str) -> None:
    """Raise ConfigError if a YAML value is not of the field's kind."""
    kinds: dict[str, tuple[type, ...]] = {
        "Literal['apply', 'accepted', 'ignore']": (str,),
        "Literal['score', 'hash']": (str,),
        "bool": (bool,),
        "int": (int,),
        "int | None": (int, type(None)),
        "float | None": (int, float, type(None)),
        "str | None": (str, type(None)),
        "float": (int, float),
        "tuple[str, ...]": (str, list),
        "Mapping[str, float]": (dict,),
    }
    wanted = kinds[annotation]
    wrong_bool = isinstance(value, bool) and bool not in wanted
    if wrong_bool or not isinstance(value, wanted):
        raise ConfigError(f"{what}: {value!r} is not of the kind {annotation}")
    if isinstance(value, list) and not all(isinstance(one, str) for one in value):
        raise ConfigError(f"{what}: {value!r} is not a list of SQL expressions")
    if isinstance(value, dict) and not all(
        isinstance(name, str) and isinstance(share, (int, float)) for name, share in value.items()
    ):
        raise ConfigError(f"{what}: {value!r} is not `name: share` lines")
