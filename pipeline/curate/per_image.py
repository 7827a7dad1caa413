"""The stages that depend on one image alone: status, verdicts, thresholds, predicates, duplicate masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from pipeline.curate.curate_config import CurateConfig
from pipeline.curate.predicate import Predicate, parse_predicate
from pipeline.dataset.phrase_rows import Batch, batch_schema, given_aliases, one_array, open_batch
from pipeline.dataset.segmentations import coco_rles, segmentation_problems

#: (shard, key) -> {phrase, or None for the image: verdict}
Verdicts = Mapping[tuple[str, str], Mapping[str | None, str]]


@dataclass(frozen=True)
class Judge:
    """A config prepared for a dataset of `schema`: predicates parsed, verdicts looked up."""

    config: CurateConfig
    schema: pa.Schema
    verdicts: Verdicts

    def stages(self) -> list[str]:
        """Names of the stages that run here, in order."""
        config = self.config
        names = ["status"]
        names += ["reviews"] if config.reviews != "ignore" else []
        names += ["targets", "segmentation"]
        names += [f"where {expression}" for expression in config.where]
        names += ["merge masks"] if config.merge_iou is not None else []
        return [*names, "empty images"]

    def judge(self, table: pa.Table) -> Batch:
        """Decide on some rows of one file (every column of `schema` but `image`)."""
        batch = open_batch(table)
        _check_status(batch, self.config)
        if self.config.reviews != "ignore":
            _apply_verdicts(batch, self.config, self.verdicts)
        _decide_targets(batch, self.config)
        _check_segmentations(batch)
        for predicate, of_image in self.predicates:
            stage = f"where {predicate.expression}"
            if of_image:
                batch.drop_rows(stage, ~predicate(batch.rows), "predicate_false")
            else:
                batch.drop_masks(stage, ~predicate(_with_targets(batch)), "predicate_false")
        if self.config.merge_iou is not None:
            _merge_masks(batch, self.config.merge_iou)
        if not self.config.keep_empty:
            kept = np.bincount(batch.row_of[batch.live_masks], minlength=len(batch.live_rows))
            batch.drop_rows("empty images", kept == 0, "no_phrase_left")
        return batch

    @cached_property
    def predicates(self) -> list[tuple[Predicate, bool]]:
        """Each `where` and whether it is about the image alone. Raises ConfigError."""
        of_image = set(open_batch(self.schema.empty_table()).rows.schema.names)
        columns = batch_schema(self.schema)
        parsed = [parse_predicate(expression, columns) for expression in self.config.where]
        return [(predicate, of_image.issuperset(predicate.columns)) for predicate in parsed]


def _check_status(batch: Batch, config: CurateConfig) -> None:
    status = np.array(batch.rows["status"].to_pylist(), dtype=object)
    failed = status == "error"
    if failed.any():
        kinds = np.array(
            [(error or {}).get("kind") for error in batch.rows["error"].to_pylist()], dtype=object
        )
        for kind in sorted({str(kind) for kind in kinds[failed]}):
            batch.drop_rows("status", failed & (kinds.astype(str) == kind), f"error_{kind}")
    if not config.keep_empty:
        batch.drop_rows("status", status == "no_phrase", "no_phrase")


def _apply_verdicts(batch: Batch, config: CurateConfig, verdicts: Verdicts) -> None:
    places = list(zip(batch.rows["shard"].to_pylist(), batch.rows["key"].to_pylist(), strict=True))
    of_row = [verdicts.get(place, {}) for place in places]
    images = np.array([found.get(None, "none") for found in of_row], dtype=object)
    phrases = batch.masks["phrase"].to_pylist()
    rows = batch.row_of.tolist()
    masks = np.array(
        [of_row[row].get(phrase, "none") for row, phrase in zip(rows, phrases, strict=True)], dtype=object
    )
    unwanted = {"reject": "rejected", **({"flag": "flagged"} if config.drop_flagged else {})}
    for verdict, reason in unwanted.items():
        batch.drop_rows("reviews", images == verdict, reason)
        batch.drop_masks("reviews", masks == verdict, reason)
    batch.accepted_rows |= images == "accept"
    batch.accepted_masks |= (masks == "accept") | batch.accepted_rows[batch.row_of]
    if config.reviews == "accepted":
        batch.drop_masks("reviews", ~batch.accepted_masks, "not_accepted")
        some = np.bincount(batch.row_of[batch.live_masks], minlength=len(images)) > 0
        batch.drop_rows("reviews", ~(some | batch.accepted_rows), "not_accepted")


def _decide_targets(batch: Batch, config: CurateConfig) -> None:
    """has_target again from target_pixels, where a threshold is given; then the empty ones go."""
    reason = "no_target"
    if config.min_target_pixels is not None:
        pixels = batch.masks["target_pixels"].cast(pa.int64())
        known = np.asarray(pixels.is_valid())
        enough = np.asarray(pixels.fill_null(0)) >= config.min_target_pixels
        decided = np.where(known, enough, batch.has_target)
        changed = batch.live_masks & (decided != batch.has_target)
        batch.counts["targets", "changed_phrases", "given_a_target"] += int((changed & decided).sum())
        lost = changed & ~decided
        if config.keep_no_target:
            batch.counts["targets", "changed_phrases", "target_taken"] += int(lost.sum())
        else:
            batch.drop_masks("targets", lost, "below_min_target_pixels")
        batch.has_target = decided
    if not config.keep_no_target:
        batch.drop_masks("targets", ~batch.has_target, reason)


def _check_segmentations(batch: Batch) -> None:
    at = np.flatnonzero(batch.live_masks)
    segmentations = one_array(batch.masks["segmentation"].take(pa.array(at)))
    broken = np.zeros(len(batch.live_masks), dtype=bool)
    broken[at[list(segmentation_problems(segmentations, batch.sizes[batch.row_of[at]]))]] = True
    for name in ("bbox", "area"):  # those of the segmentation, which every reader relies on
        broken |= np.asarray(batch.masks[name].is_null())
    batch.drop_masks("segmentation", broken, "broken_segmentation")


def _with_targets(batch: Batch) -> pa.Table:
    """The mask columns beside their image's, `has_target` as decided."""
    table = batch.rows.take(pa.array(batch.row_of))
    for column in batch.masks.schema:
        values = batch.masks[column.name]
        if column.name == "has_target":
            values = pa.array(batch.has_target)
        table = table.append_column(column, values)
    return table


def _merge_masks(batch: Batch, threshold: float) -> None:
    """Of masks of one image with an IoU of at least `threshold` keep the best, greedily.

    The best: accepted by a person first, then by score, then the first phrase.
    """
    at = np.flatnonzero(batch.live_masks & batch.has_target)
    starts = np.flatnonzero(np.diff(batch.row_of[at], prepend=-1))
    scores = np.asarray(batch.masks["score"].fill_null(-1.0))
    phrases = batch.masks["phrase"]
    rles = dict(
        zip(at.tolist(), coco_rles(one_array(batch.masks["segmentation"].take(pa.array(at)))), strict=True)
    )
    merged = np.zeros(len(batch.live_masks), dtype=bool)
    for group in np.split(at, starts[1:]):
        if len(group) < 2:
            continue
        members = group[np.lexsort((group, -scores[group], ~batch.accepted_masks[group]))]
        masks = [rles[member] for member in members.tolist()]
        overlap = np.asarray(coco_mask.iou(masks, masks, [0] * len(masks))) >= threshold
        for best in range(len(members)):
            if merged[members[best]]:
                continue
            for other in np.flatnonzero(overlap[best, best + 1 :]) + best + 1:
                if not merged[members[other]]:
                    merged[members[other]] = True
                    names = batch.aliases.setdefault(int(members[best]), [])
                    names.append(phrases[int(members[other])].as_py())
                    names.extend(given_aliases(batch.masks, int(members[other])))
    batch.drop_masks("merge masks", merged, "merged_as_alias")
