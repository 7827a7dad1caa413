"""What to keep, as one frozen dataclass that a YAML file or flags fill."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import yaml

from sspsam.errors import ConfigError

REVIEWS: Final = ("apply", "accepted", "ignore")
CAP_ORDERS: Final = ("score", "hash")

#: Bits by which two 64-bit perceptual hashes may differ and still be searched for in buckets.
MAX_PHASH_DISTANCE: Final = 8


@dataclass(frozen=True)
class CurateConfig:
    """The declarative part. Stages run in the order of the fields; each is off by default.

    Two runs with the same source, verdicts and config write the same rows.
    """

    #: "apply": rejected images and masks go. "accepted": only accepted ones stay. "ignore".
    reviews: str = "apply"
    #: Whether flagged images and masks go too.
    drop_flagged: bool = False
    #: has_target is decided again: target_pixels (of the scoring square) at least this many.
    min_target_pixels: int | None = None
    #: Whether phrases without a target (has_target false) stay, as negatives.
    keep_no_target: bool = False
    #: SQL expressions over the columns of `images` and `masks`; null counts as false.
    where: tuple[str, ...] = ()
    #: Masks of one image with an IoU of at least this become one; its other phrases are aliases.
    merge_iou: float | None = None
    #: Images whose perceptual hashes differ in at most this many of 64 bits are one.
    phash_distance: int | None = None
    #: Masks of one normalised phrase in the whole dataset.
    max_per_phrase: int | None = None
    #: Which masks of a capped phrase stay: the best "score" or an even "hash" sample.
    cap_order: str = "score"
    #: Whether images without a mask left stay.
    keep_empty: bool = False
    #: Share of each split; an image's split follows from its key and `seed` alone.
    split: Mapping[str, float] = field(default_factory=lambda: {"train": 0.9, "val": 0.1})
    #: Changes the split and the hash order.
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("--reviews", self.reviews, REVIEWS)
        _one_of("--cap-order", self.cap_order, CAP_ORDERS)
        if isinstance(self.where, str):
            object.__setattr__(self, "where", (self.where,))
        object.__setattr__(self, "where", tuple(self.where))
        _at_least("--min-target-pixels", self.min_target_pixels, 0)
        _at_least("--max-per-phrase", self.max_per_phrase, 1)
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
            _check_type(f"{where}: {name}", value, str(known[name].type))
        return cls(**{str(name): value for name, value in values.items()})

    @classmethod
    def from_yaml(cls, path: str) -> CurateConfig:
        """Read a YAML file of the fields above. Raises ConfigError naming the file."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"--config {path}: cannot be read as YAML ({error})") from error
        if values is None:
            return cls()
        if not isinstance(values, dict):
            raise ConfigError(f"--config {path}: needs `option: value` lines, found {values!r:.60}")
        return cls.from_mapping(values, f"--config {path}")

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON types, as `_curation.json` holds them."""
        return {**asdict(self), "where": list(self.where), "split": dict(self.split)}


@dataclass(frozen=True)
class CurateResources:
    """How to do it; changes nothing in the result."""

    #: Processes that read and write files, at most; a small dataset takes fewer. 1 = this one.
    workers: int = max(1, os.cpu_count() or 1)
    #: MiB that DuckDB may hold; what does not fit spills to `scratch`.
    memory_mb: int = 1024
    #: Local folder for what the two readings share; None = the system's temporary folder.
    scratch: str | None = None
    #: Images a written file at most.
    rows_per_file: int = 5000

    def __post_init__(self) -> None:
        _at_least("--workers", self.workers, 1)
        _at_least("--memory-mb", self.memory_mb, 64)
        _at_least("--rows-per-file", self.rows_per_file, 1)
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
        "str": (str,),
        "bool": (bool,),
        "int": (int,),
        "int | None": (int, type(None)),
        "float | None": (int, float, type(None)),
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


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{flag} {value!r}: one of {', '.join(known)}")


def _at_least(flag: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{flag} {value}: at least {least}")
