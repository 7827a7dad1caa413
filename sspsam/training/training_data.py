"""Training data: generated scenes, or records of a benchmark or of our own annotations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import torch

from sspsam.data import DataConfig, Record, read_records
from sspsam.data.annotations import drawn_by
from sspsam.data.record_index import records_digest
from sspsam.errors import ConfigError, DataError
from sspsam.images.image_places import absolute_root
from sspsam.model_config import SSPSAMConfig
from sspsam.scenes.render import SceneConfig
from sspsam.storage.local_paths import absolute, located
from sspsam.training.absent import FEW, SHARE, share_without_target
from sspsam.training.process import Source
from sspsam.training.record_batches import RecordOptions, RecordSource
from sspsam.training.scene_batches import SceneSource
from sspsam.training.train_config import PROMPT_STAGES, TrainConfig
from sspsam.training.validate import VALIDATION_SEED

#: How often each kind of phrase is drawn where the SSP encoder trains: more of what it learns slowly
#: (sizes) or is too sure of (absent things) than `sspsam.scenes.expressions.KINDS`, which measures.
_TAUGHT: Final = {
    "name": 0.12,
    "colour": 0.10,
    "size": 0.30,
    "position": 0.26,
    "relation": 0.24,
    "set": 0.05,
    "category": 0.05,
    "absent": 0.22,
}
_HELD_OUT = 0.05  # of the images, where a dataset has no split for validation


@dataclass(frozen=True)
class SceneData:
    """Generated scenes; `folder` keeps those that are drawn ahead."""

    folder: str

    def sources(
        self, config: TrainConfig, model: SSPSAMConfig, rank: int = 0, world: int = 1
    ) -> tuple[Source, Source]:
        """Training and validation batches.

        Raises:
            ConfigError: the settings need data of another kind.
        """
        self.check(config, model)
        # A seed of its own keeps each process's scenes apart from the others'.
        seed = config.seed + 1009 * rank
        pool = Path(self.folder) / f"pool-{rank}" if rank else Path(self.folder) / "pool"
        scenes = SceneConfig()
        shares = _TAUGHT if config.stage in PROMPT_STAGES else None
        training = SceneSource(model, scenes, seed, config.pool, pool, shares)
        return training, SceneSource(model, scenes, VALIDATION_SEED)

    def check(self, config: TrainConfig, model: SSPSAMConfig) -> None:
        """Raise ConfigError if the settings need data of another kind."""
        if config.cache_features and not config.pool:
            raise ConfigError("--cache-features needs --pool: new scenes have nothing to reuse")
        if config.epochs:
            raise ConfigError("--epochs: scenes never end; give --steps, or --data")

    def absolute(self) -> SceneData:
        """The same data with a folder that holds from any other."""
        return SceneData(absolute(self.folder))

    def doubt(self) -> None:
        """Of drawn scenes the truth is exact."""

    def describe(self) -> dict[str, Any]:
        """What decides which batches there are, by the names of the flags."""
        return {"data": "scenes"}


@dataclass(frozen=True)
class RecordData:
    """Labelled images.

    Attributes:
        data: what to train on.
        validation_split: of the same dataset; None holds out a twentieth of the images.
        options: how records become batches.
        features: folder or URL of cached image-tower features; None runs the towers.
    """

    data: DataConfig
    validation_split: str | None = None
    options: RecordOptions = field(default_factory=RecordOptions)
    features: str | None = None

    def absolute(self) -> RecordData:
        """The same data with local paths that hold from any folder: workers run in one of their own."""
        data = replace(
            self.data,
            dataset=located(self.data.dataset),
            images=self.data.images and absolute(self.data.images),
            image_root=tuple(absolute_root(root) for root in self.data.image_root),
        )
        return replace(self, data=data, features=self.features and absolute(self.features))

    def describe(self) -> dict[str, Any]:
        """What decides which batches there are, by the names of the flags."""
        data = self.absolute().data
        return {
            "data": data.dataset,
            "format": data.format,
            "split": data.split,
            "validation_split": self.validation_split,
            "images_at": data.images,
            "split_by": data.split_by,
            "limit": data.limit,
            "flip": self.options.flip,
            "translate": self.options.translate,
            "training_records": records_digest(self._kept[0]),
            "validation_records": records_digest(self._kept[1]),
        }

    def doubt(self) -> str | None:
        """Why what validation will say is not to be trusted, in a line; None if it is."""
        model = drawn_by(self.data) if self.data.format == "annotations" else None
        return model and (
            f"validation compares with masks that {model} drew, not with the truth: a model that repeats its "
            "mistakes scores high. Compare on imported truth, or on masks that people accepted "
            "(curate --reviews accepted)"
        )

    def check(self, config: TrainConfig, model: SSPSAMConfig) -> None:
        """Raise what `sources` raises, and DataError if images cannot be read, fifty in a row."""
        for source in self.sources(config, model):
            source.make(np.zeros(1, np.int64), config.phrases, Random(0), torch.device("cpu"))

    @cached_property
    def _kept(self) -> tuple[list[Record], list[Record]]:
        """`records`, read once a process."""
        return self.records()

    def __getstate__(self) -> dict[str, Any]:
        """Without the records: a worker reads them where it is."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def records(self) -> tuple[list[Record], list[Record]]:
        """Training and validation records.

        Raises:
            DataError: as `read_records`, or there are too few images to hold one out.
        """
        training = list(read_records(self.data))
        if self.validation_split is not None:
            unseen = replace(self.data, split=self.validation_split)
            return training, list(read_records(unseen))
        held = [_holds_out(record) for record in training]
        if all(held) or not any(held):
            # So few images that chance left one side empty: the first image is held out.
            first = training[0].image
            held = [record.image == first for record in training]
        if all(held):
            raise DataError(f"{self.data.dataset} has one image: nothing is left to validate on")
        kept = [record for record, out in zip(training, held, strict=True) if not out]
        return kept, [record for record, out in zip(training, held, strict=True) if out]

    def sources(
        self, config: TrainConfig, model: SSPSAMConfig, rank: int = 0, world: int = 1
    ) -> tuple[Source, Source]:
        """Training and validation batches of this process."""
        if config.stage not in PROMPT_STAGES:
            raise ConfigError(f"--stage {config.stage} is trained on scenes, not on --data")
        if self.features is not None and config.trains_vision:
            raise ConfigError("--vision-rate: --features holds CLIP's tokens: its tower cannot train")
        training, unseen = self._kept
        options = replace(
            self.options,
            seed=config.seed,
            absent_share=_absent_share(training) if config.absent_share is None else config.absent_share,
            absent_near=config.absent_near,
            boxes_only=config.stage == "boxes",
            as_stored=self.data.as_stored,
            storage_options=dict(self.data.storage_options),
        )
        # "Nothing there" is always measured, also where it is not trained.
        still = replace(options, flip=0.0, translate=False, absent_share=_absent_share(unseen))
        return (
            RecordSource(model, training, options, rank=rank, world=world, features=self._features()),
            RecordSource(model, unseen, still, others=[*unseen, *training]),
        )

    def _features(self) -> Any:
        if self.features is None:
            return None
        from sspsam.training.feature_store import FeatureStore

        return FeatureStore(self.features, dict(self.data.storage_options))


Data = SceneData | RecordData


def _absent_share(records: Sequence[Record]) -> float:
    """The share of phrases without a target to fill up to, where nothing is asked."""
    return SHARE if share_without_target(records) < FEW else 0.0


def settle(
    config: TrainConfig,
    training: Source,
    validation: Source,
    say: Callable[[str], None] = lambda line: None,
) -> TrainConfig:
    """The stage's settings with epochs as steps, and no more validation units than there are.

    say: told what is done about phrases without a target, a line each.
    """
    if not isinstance(training, RecordSource):
        return config
    steps, warmup = config.steps, config.warmup
    if config.epochs:
        each = training.steps_per_epoch(config.images, config.phrases, config.accumulate)
        steps, warmup = each * config.epochs, each * config.warmup_epochs
    assert isinstance(validation, RecordSource)
    if training.options.absent_share > training.own_share:
        say(
            f"{training.own_share:.1%} of the phrases have no target: filled up to "
            f"{training.options.absent_share:.0%} with phrases of other images (--absent-share)"
        )
    lost = {'"nothing there" may be forgotten': training, "N-acc is not measured": validation}
    for what, source in lost.items():
        if source.absent is not None and not source.absent.any() and not source.own_share:
            say(
                f"{what}: no phrase is without a target, and no other image has one that surely means "
                "nothing here; bring some in: import with neg_category_ids, curate --keep-no-target"
            )
    units = len(validation.units(config.phrases))
    return replace(
        config,
        steps=steps,
        warmup=warmup,
        epochs=0,
        warmup_epochs=0,
        validation_scenes=min(config.validation_scenes, units),
    )


def _holds_out(record: Record) -> bool:
    """Whether the record's image is for validation: the same images in every run."""
    reference: Sequence[Any] = (record.image.url, record.image.member)
    digest = hashlib.blake2b(repr(reference).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < _HELD_OUT * 2**64
