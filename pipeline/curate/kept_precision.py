"""`curate --precision`: the threshold of p_correct that verdicts or true masks allow, or why none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pipeline.curate.curate_config import CurateConfig
from pipeline.curate.per_image import Judge
from pipeline.dataset.annotation_dataset import AnnotationDataset, read_every_review
from pipeline.dataset.audit_sample import Audit, read_audits
from pipeline.dataset.calibration import APPLIED, image_name
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.reviews import decided, votes_of
from pipeline.dataset.threshold_guarantee import (
    Guarantee,
    Sample,
    choose_threshold,
    draws_needed,
    look_confidence,
)
from pipeline.dataset.truth import true_ious
from pipeline.dataset.vocabulary import stable_hash
from sspsam.errors import ConfigError

#: shard, key, position of the phrase in its image.
_Place = tuple[str, str, int]


def find_guarantee(dataset: AnnotationDataset, config: CurateConfig, memory_mb: int = 1024) -> Guarantee:
    """The threshold for `config.precision` over the masks that the stages before it keep.

    Verdicts take no part in what is kept before: the promise is about masks as the model drew them. Images
    from whose labels the calibration was learnt are left out of population and sample.
    Raises ConfigError with the number of verdicts or images that are still needed, if there are too few.
    """
    assert config.precision is not None
    if "p_correct" not in dataset.added:
        raise ConfigError(
            f"--precision needs p_correct, which {dataset.url} has not:"
            f" sspsam calibrate {dataset.url} --calibration FILE --to SCORED, or annotate --calibration FILE"
        )
    made = dataset.read_json("_calibration.json") or {"calibration": dataset.read_json(APPLIED) or {}}
    used = frozenset(made.get("calibration", {}).get("labels", {}).get("used", ()))
    population = _population(dataset, config, used)
    p = np.array(list(population.values()), np.float32)
    if config.truth is None:
        samples = [_sample(audit, dataset, population) for audit in read_audits(dataset)]
    else:
        samples = [true_sample(_true(dataset, config.truth, memory_mb), population)]
    found = None
    if len(p) and samples:
        level = look_confidence(config.confidence, len(samples))
        found = choose_threshold(p, samples, config.precision, level)
    if found is None:
        raise ConfigError(_refusal(dataset, p, samples, config))
    return replace(found, confidence=config.confidence)


def _population(
    dataset: AnnotationDataset, config: CurateConfig, used: frozenset[str]
) -> dict[_Place, float]:
    """p_correct of every mask that the promise is about."""
    before = replace(config, reviews="ignore", merge_iou=None, keep_no_target=False, keep_empty=False)
    judge = Judge(before, dataset.schema, {})
    columns = [name for name in dataset.schema.names if name != "image"]
    found: dict[_Place, float] = {}
    for file in dataset.files:
        for table in dataset.read_batches(file, columns):
            batch = judge.judge(table)
            names = list(zip(*(batch.rows[name].to_pylist() for name in ("shard", "key")), strict=True))
            fresh = np.array([image_name(*name) not in used for name in names], dtype=bool)
            p = batch.masks["p_correct"].to_pylist()
            places = batch.masks["phrase_index"].to_pylist()
            for at in np.flatnonzero(batch.live_masks & fresh[batch.row_of]).tolist():
                if p[at] is not None:
                    found[(*names[batch.row_of[at]], places[at])] = p[at]
    return found


def _sample(audit: Audit, dataset: AnnotationDataset, population: dict[_Place, float]) -> Sample:
    """The audit's draws with their verdicts, as far as they are of the population.

    A phrase without a verdict, or flagged, counts as wrong, so that leaving out the hard ones helps nobody.
    """
    votes, rows = votes_of(read_every_review(dataset)), audit.rows.to_pylist()
    given = [votes.get((row["shard"], row["key"], row["phrase"]), {}) for row in rows]
    right = np.array([decided(of_phrase) is True for of_phrase in given], dtype=bool)
    inside = np.array([(row["shard"], row["key"], row["position"]) in population for row in rows], dtype=bool)
    whole = audit.labelled(right)
    masks = np.asarray(audit.rows["cell"].to_pylist()) != "no target"
    at = np.repeat(inside[masks], audit.draws[masks])
    return Sample(whole.p[at], whole.right[at], whole.rate[at], whole.cells)


def _true(dataset: AnnotationDataset, url: str, memory_mb: int) -> dict[tuple[str, str], dict[int, float]]:
    index = Index(dataset, memory_mb=memory_mb)
    try:
        index.refresh()
        return true_ious(index, url, memory_mb=memory_mb)
    finally:
        index.close()


def true_sample(
    true: Mapping[tuple[str, str], Mapping[int, float]], population: Mapping[_Place, float]
) -> Sample:
    """At most one draw of each image with true masks, uniform over the masks of the population.

    Masks of one image are right or wrong together, so two are not independent. Each image has as many seats
    as the fullest one has masks; a hash of its name says which is looked at, and an empty one gives no draw.

    true: {(shard, key): {position: IoU with the true mask}}; 0.5 is right, a mask without one is wrong.
    population: p_correct of every mask that the promise is about.
    """
    seats: dict[tuple[str, str], list[_Place]] = defaultdict(list)
    for place in sorted(population):
        seats[place[:2]].append(place)
    count = max(map(len, seats.values()), default=1)
    drawn = []
    for image in sorted(true):
        seat = stable_hash("\0".join(image)) % count
        drawn += seats[image][seat : seat + 1]
    right = [true[place[:2]].get(place[2], 0.0) >= 0.5 for place in drawn]
    p = np.array([population[place] for place in drawn], np.float32)
    rate = 1 / max(1, len(population))
    return Sample(p, np.array(right, dtype=bool), np.full(len(p), rate), ((rate, 1.0),))


def _refusal(dataset: AnnotationDataset, p: np.ndarray, samples: list[Sample], config: CurateConfig) -> str:
    precision, confidence = config.precision or 0.0, look_confidence(config.confidence, len(samples) + 1)
    if not len(p):
        return (
            f"--precision {precision:g}: {dataset.url} has no mask to promise anything about: the stages"
            " before keep none, or only of images from whose labels its calibration was learnt"
        )
    have = sum(len(sample.p) for sample in samples)
    wrong = sum(int((~sample.right).sum()) for sample in samples)
    needed = draws_needed(p, precision, confidence)
    audited = f"{have} audited masks ({wrong} wrong or without verdict)"
    if config.truth is not None:
        audited = f"{have} masks, one an image of --truth that the calibration does not know ({wrong} wrong),"
    said = f"--precision {precision:g}: {audited} show no threshold"
    if needed is None:
        return f"{said}, and by p_correct none would have it: ask for less, or find better signals"
    more = max(needed - have, int(0.25 * needed) + 1)
    if config.truth is not None:
        return f"{said}; about {more} more such masks are needed, of further images"
    return f"{said}; about {more} more verdicts are needed: sspsam audit {dataset.url} --budget {more}"


def promise_card(found: Guarantee) -> str:
    """The data card of a dataset with a guarantee."""
    return (
        "# Masks with a guarantee\n\n"
        f"{found.statement()[0].upper()}{found.statement()[1:]}.\n\n"
        "The promise is about the masks before duplicates are merged and capped. Right is what the verdicts\n"
        "of the audit accept, or what has an IoU of 0.5 with the truth that was given. It was found by\n"
        "fixed-sequence testing with exact binomial bounds (Learn then Test, arXiv 2110.01052),\n"
        f"{found.tested} thresholds tested. It holds for these masks alone.\n"
    )
