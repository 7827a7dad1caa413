"""Labelled records (benchmarks, annotation Parquet) as training batches: a pure function of the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageOps
from torch import Tensor

from sspsam.data import Record, group_by_image
from sspsam.data.orientation import ignore_orientation
from sspsam.data.record_index import image_keys
from sspsam.errors import ConfigError, DataError, SSPSAMError
from sspsam.images.decoding import decode_image
from sspsam.images.geometry import Geometry, xywh_to_xyxy
from sspsam.images.load_image import load_image
from sspsam.images.preprocess import clip_square, sam_square
from sspsam.model_config import SSPSAMConfig
from sspsam.training.absent import AbsentPhrases, share_without_target
from sspsam.training.augment import can_mirror, mirror_box, swap_left_right
from sspsam.training.scene_batches import Batch, ScenePool, epoch_slice

_LOOK_AHEAD = 2  # batches that threads prepare while the model works
_MOST_UNREADABLE = 50  # images in a row


class Features(Protocol):
    """Image-tower outputs that were computed before; see `sspsam.training.feature_store`."""

    def get(self, image_key: str, mirrored: bool) -> tuple[Tensor, Tensor, int, int]:
        """CLIP tokens (1 + G*G, E), SAM embedding (C, H, W), both float16, image width and height."""


@dataclass(frozen=True)
class RecordOptions:
    """How records become batches."""

    seed: int = 0
    flip: float = 0.0  # chance of mirroring a picture and left and right in its phrases, where they can be
    translate: bool = False  # place the picture anywhere in CLIP's square, as the authors train
    absent_share: float = 0.0  # of the phrases shown without a target, filled up with other images' phrases
    absent_near: float = 0.5  # share of near ones among those
    boxes_only: bool = False  # masks are not needed: stage "boxes"
    as_stored: bool = True  # masks belong to the pixels as stored, EXIF orientation is ignored
    threads: int = 4  # that read and decode
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"--flip must be a chance in 0..1, not {self.flip}")


@dataclass(frozen=True)
class _Sample:
    """One image with its phrases, on the CPU."""

    unit: int
    phrases: list[str]
    clip_pixels: Tensor | None
    sam_pixels: Tensor | None
    clip_tokens: Tensor | None
    sam_embedding: Tensor | None
    masks: Tensor  # (P, M, M) bool
    boxes: Tensor  # (P, 4)
    mentioned: Tensor  # (P, G, G)


class RecordSource:
    """Batches of images with up to P phrases each, in a shuffled order that the seed fixes.

    An epoch shows every referent (a ref, a task, an annotation) once, by one of its sentences, as the
    authors' loader does; an image with more than P of them comes several times. An image that cannot
    be read is left out for the next one, and named in `unreadable`. If `options.absent_share` exceeds the
    share of records without a target, phrases of other images that mean nothing in the image are added.

    Args:
        model: sizes of both towers' inputs.
        records: with masks, unless `options.boxes_only`.
        rank, world: this process and how many there are; each gets batches of its own.
        features: towers' outputs computed before. Pictures are then read only if `options.translate`
            moves them in CLIP's square, and SAM never sees them.
        others: records whose phrases are drawn as absent ones, those to train on if left out.

    Raises:
        DataError: there is nothing to train on.
    """

    pool: ScenePool | None = None
    pool_size: int = 0

    def __init__(
        self,
        model: SSPSAMConfig,
        records: Sequence[Record],
        options: RecordOptions,
        *,
        rank: int = 0,
        world: int = 1,
        features: Features | None = None,
        others: Sequence[Record] | None = None,
    ) -> None:
        self.model, self.options, self.features = model, options, features
        self.rank, self.world = rank, world
        groups = group_by_image(records)
        # Of all images, whatever is left out below: the cache of features has them under these names.
        named = dict(zip((group[0].image for group in groups), image_keys(groups), strict=True))
        usable = [r for r in records if options.boxes_only or r.segmentation or not r.has_target]
        self.images = group_by_image(usable)
        if not self.images:
            raise DataError("no record to train on: stage masks needs masks, boxes alone do not do")
        self.keys = [named[group[0].image] for group in self.images]
        self.referents = [_referents(group) for group in self.images]
        self.absent: AbsentPhrases | None = None
        self.own_share = share_without_target(usable)
        if options.absent_share > self.own_share:
            drawn = usable if others is None else others
            self.absent = AbsentPhrases(self.images, drawn, options.absent_near)
        self.unreadable: dict[str, str] = {}
        self._units: dict[int, list[tuple[int, int]]] = {}
        self._threads = ThreadPoolExecutor(options.threads, thread_name_prefix="records")
        self._ahead: dict[tuple[int, int, int], list[Future[_Sample]]] = {}

    def units(self, phrases: int) -> list[tuple[int, int]]:
        """(image, part) of everything that an epoch shows, `phrases` referents a part."""
        if phrases not in self._units:
            self._units[phrases] = [
                (image, part)
                for image, referents in enumerate(self.referents)
                for part in range(-(-len(referents) // phrases))
            ]
        return self._units[phrases]

    def steps_per_epoch(self, images: int, phrases: int, accumulate: int = 1) -> int:
        """Optimiser steps in which all processes together show everything once."""
        return -(-len(self.units(phrases)) // (images * accumulate * self.world))

    def batch(self, step: int, images: int, phrases: int, device: torch.device) -> Batch:
        """The batch of a step for this process: the same one at every call."""
        for position in range(step, step + 1 + _LOOK_AHEAD):
            key = (position, images, phrases)
            if key not in self._ahead:
                self._ahead[key] = self._submit(position, images, phrases)
        self._ahead = {k: v for k, v in self._ahead.items() if k[0] >= step}
        samples = [future.result() for future in self._ahead.pop((step, images, phrases))]
        return self._collate(samples, device)

    def make(self, indices: NDArray[np.int64], phrases: int, random: Random, device: torch.device) -> Batch:
        """These units as a batch, for validation; `random` is not used: the choice is the first epoch's."""
        count = len(self.units(phrases))
        wanted = [int(index) for index in indices if index < count]
        return self._collate([self._sample(0, unit, phrases) for unit in wanted], device)

    def _submit(self, position: int, images: int, phrases: int) -> list[Future[_Sample]]:
        size = len(self.units(phrases))
        start = (position * self.world + self.rank) * images
        order = epoch_slice(self.options.seed, start, images, size)
        return [
            self._threads.submit(self._sample, (start + i) // size, int(unit), phrases)
            for i, unit in enumerate(order)
        ]

    def _sample(self, epoch: int, unit: int, phrases: int) -> _Sample:
        """A unit in an epoch; the next readable one if its image cannot be read."""
        units = self.units(phrases)
        for shift in range(_MOST_UNREADABLE):
            number = (unit + shift) % len(units)
            image, part = units[number]
            random = Random(f"{self.options.seed}/{epoch}/{image}")
            order = random.sample(self.referents[image], len(self.referents[image]))
            chosen = [random.choice(sentences) for sentences in order[part * phrases : (part + 1) * phrases]]
            chance = Random(f"{self.options.seed}/{epoch}/{number}/flip").random()
            mirrored = chance < self.options.flip and all(can_mirror(r.phrase) for r in chosen)
            chosen += self._absent(chosen, image, Random(f"{self.options.seed}/{epoch}/{number}/absent"))
            try:
                return self._prepare(number, image, chosen, mirrored, random)
            except SSPSAMError as error:
                self.unreadable[self.keys[image]] = str(error)
        raise DataError(
            f"{_MOST_UNREADABLE} images in a row cannot be read, the last: "
            f"{list(self.unreadable.values())[-1]}"
        )

    def _absent(self, shown: Sequence[Record], image: int, random: Random) -> list[Record]:
        """Phrases of other images for an image of which `shown` are shown."""
        if self.absent is None:
            return []
        share = self.options.absent_share
        count = int(len(shown) * (share - self.own_share) / (1 - share) + random.random())
        return [
            Record("absent", shown[0].image, phrase, shown[0].split, has_target=False)
            for phrase in self.absent.draw(image, count, random)
        ]

    def _prepare(
        self, unit: int, image: int, records: Sequence[Record], mirrored: bool, random: Random
    ) -> _Sample:
        cached = None if self.features is None else self.features.get(self.keys[image], mirrored)
        clip_pixels = sam_pixels = None
        if cached is None or self.options.translate:
            picture = self._picture(records[0])
            picture = ImageOps.mirror(picture) if mirrored else picture
            geometry = Geometry.of(picture.width, picture.height, self.model)
            clip_pixels = clip_square(picture, geometry)
            # Of a cached image SAM's square, the dearer one, is not needed.
            sam_pixels = sam_square(picture, geometry) if cached is None else None
            if self.options.translate:
                clip_pixels, geometry = _translated(clip_pixels, geometry, random)
        else:
            geometry = Geometry.of(cached[2], cached[3], self.model)
        masks, boxes = self._targets(records, geometry, mirrored)
        rows, columns = geometry.patch_overlap(self.model.clip.grid, self.model.score_size)
        return _Sample(
            unit=unit,
            phrases=[swap_left_right(r.phrase) if mirrored else r.phrase for r in records],
            clip_pixels=clip_pixels,
            sam_pixels=sam_pixels,
            clip_tokens=None if cached is None or self.options.translate else cached[0],
            sam_embedding=None if cached is None else cached[1],
            masks=masks,
            boxes=boxes,
            mentioned=rows @ masks.float() @ columns.T,
        )

    def _picture(self, record: Record) -> Any:
        data = load_image(dataclasses.asdict(record.image), dict(self.options.storage_options))
        return decode_image(ignore_orientation(data) if self.options.as_stored else data)

    def _targets(
        self, records: Sequence[Record], geometry: Geometry, mirrored: bool
    ) -> tuple[Tensor, Tensor]:
        """Masks in the score square and boxes relative to CLIP's; zeros without a target."""
        width, height, size = geometry.width, geometry.height, self.model.score_size
        masks = torch.zeros(len(records), size, size, dtype=torch.bool)
        boxes = torch.zeros(len(records), 4)
        for row, record in enumerate(records):
            if not record.has_target:
                continue
            if record.segmentation is not None:
                drawn = record.mask(height, width, dict(self.options.storage_options))
                drawn = np.fliplr(drawn).copy() if mirrored else drawn
                masks[row] = geometry.sam.masks_to_square(torch.from_numpy(drawn)[None], size)[0]
            if record.box is not None:
                box = mirror_box(record.box, width) if mirrored else record.box
                boxes[row] = geometry.clip.boxes_from_original(xywh_to_xyxy(torch.tensor(box)))
        return masks, boxes

    def _collate(self, samples: Sequence[_Sample], device: torch.device) -> Batch:
        def stacked(name: str) -> Tensor | None:
            parts = [getattr(sample, name) for sample in samples]
            return None if parts[0] is None else torch.stack(parts).to(device, non_blocking=True)

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(sample, name) for sample in samples]).to(device)

        counts = torch.tensor([len(sample.phrases) for sample in samples])
        none = torch.zeros(len(samples), 0, device=device)
        clip_pixels, sam_pixels = stacked("clip_pixels"), stacked("sam_pixels")
        clip_tokens, sam_embedding = stacked("clip_tokens"), stacked("sam_embedding")
        masks = joined("masks")
        there = masks.flatten(1).any(1).tolist()
        return Batch(
            scenes=np.array([sample.unit for sample in samples], dtype=np.int64),
            clip_pixels=none if clip_pixels is None else clip_pixels,
            sam_pixels=none if sam_pixels is None else sam_pixels,
            phrases=[phrase for sample in samples for phrase in sample.phrases],
            kinds=["target" if has else "no target" for has in there],
            image_index=torch.arange(len(samples)).repeat_interleave(counts).to(device),
            masks=masks,
            boxes=joined("boxes"),
            mentioned=joined("mentioned"),
            patch_names=none,
            object_masks=none,
            clip_tokens=None if clip_tokens is None else clip_tokens.float(),
            sam_embedding=None if sam_embedding is None else sam_embedding.float(),
        )


def _referents(records: Sequence[Record]) -> list[list[Record]]:
    """The records of an image by what they mean: sentences of one ref, aliases of one annotation."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        ids = record.ids
        named = [ids[name] for name in ("ref_id", "mask_id", "task_id", "position") if name in ids]
        groups.setdefault(named[0] if named else record.key, []).append(record)
    return list(groups.values())


def _translated(clip_pixels: Tensor, geometry: Geometry, random: Random) -> tuple[Tensor, Geometry]:
    """The picture somewhere else in CLIP's square of zeros."""
    frame = geometry.clip
    left = random.randint(0, frame.size - frame.resized_width)
    top = random.randint(0, frame.size - frame.resized_height)
    moved = torch.zeros_like(clip_pixels)
    height, width = frame.resized_height, frame.resized_width
    moved[:, top : top + height, left : left + width] = clip_pixels[
        :, frame.top : frame.top + height, frame.left : frame.left + width
    ]
    return moved, dataclasses.replace(geometry, clip=dataclasses.replace(frame, left=left, top=top))
