"""Does labelling with the model itself and 200 verdicts pay? The loop on scenes of an unseen style.

    python -m benchmarks.improve [--device cuda] [--work DIR] [--rounds 2] [--precision 0.9]

A round: the model draws masks for scenes of the style `twemoji`; a calibration learnt from scenes of the
styles it knows gives p_correct; an audit is drawn as `sspsam audit` does and labelled by the truth (the
verdicts); what `curate --precision` may promise is kept, and nothing else of the new scenes: of 100 phrases
of which the model says that nothing is there, 45 are there. With scenes of the known styles, and phrases of
other images as absent ones, the first model is trained on it (recipe `finetune-towers`). The next round
begins with what came of it.

Prints what was kept and how right it truly was, the scores on other scenes of the style and on held-out ones
after each round, and last the line `twemoji before after`. Truth serves for verdicts and scores alone.
With --work the same command goes on where it ended. It needs no Ray and no spaCy.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.forgetting import STYLE, embedded_row, score, settings, write_rows
from pipeline.calibrate.fit import fit_part
from pipeline.dataset.audit_sample import draw, sample_of
from pipeline.dataset.calibration import DERIVED, predict
from pipeline.dataset.threshold_guarantee import choose_threshold, look_confidence
from sspsam import SSPSAM, Segmenter
from sspsam.data import DataConfig
from sspsam.inference.results import SegmenterConfig
from sspsam.scenes import scenes
from sspsam.scenes.scene import Scene
from sspsam.schema import SIGNALS, VERIFICATION_SIGNALS
from sspsam.training.recipes import RECIPES, run_stages
from sspsam.training.record_batches import RecordOptions
from sspsam.training.training_data import RecordData

_AT_ONCE = 50


@dataclass(frozen=True)
class Drawn:
    """N masks that a model drew: (N, 2) number of scene and phrase, (N, S, S) masks, features, true IoU."""

    scenes: list[Scene]
    places: np.ndarray
    masks: np.ndarray
    features: np.ndarray
    iou: np.ndarray


def annotate(model: SSPSAM, split: str, start: int, count: int, verify: str) -> Drawn:
    """The masks with a target that a model draws for some scenes of a split."""
    segmenter = Segmenter(model.eval(), SegmenterConfig(verify=verify))  # type: ignore[arg-type]
    names = (*SIGNALS, *VERIFICATION_SIGNALS[verify])
    made = list(scenes(split, start, count))
    places, masks, features, iou = [], [], [], []
    for first in range(0, count, _AT_ONCE):
        some = made[first : first + _AT_ONCE]
        asked = [[phrase.text for phrase in scene.phrases] for scene in some]
        for number, found in enumerate(segmenter.segment([scene.image for scene in some], asked), first):
            for position, mask in enumerate(found):
                if not mask.has_target:
                    continue
                drawn, true = mask.decode(), made[number].mask(made[number].phrases[position])
                signals = {name: getattr(mask, name, None) for name in names} | dict(mask.verification)
                told = [signals[name] for name in names]
                words = len(made[number].phrases[position].text.split())
                places.append((number, position))
                masks.append(drawn)
                features.append([*told, mask.area / drawn.size, mask.target_pixels, words])
                iou.append((drawn & true).sum() / (drawn | true).sum())
    return Drawn(made, np.array(places), np.array(masks), np.array(features, float), np.array(iou))


def keep(style: Drawn, known: Drawn, names: Sequence[str], options: Any, seed: int) -> np.ndarray:
    """(N,) bool: which masks of the style the audit's guarantee allows, less those that it found wrong.

    Raises SystemExit if the audit shows no threshold.
    """
    scene = known.places[:, 0]
    part = fit_part(names, known.features, known.iou, scene, True, True)
    p = predict(part, style.features)["p_correct"].astype(np.float32)
    right, budget = style.iou >= 0.5, options.verdicts // options.rounds
    confidence = look_confidence(options.confidence, 1)
    drawn, cell, cells = draw(p, np.ones(len(p), bool), budget, options.precision, confidence, seed)
    rates = {one.name: one.rate for one in cells}
    rate = np.array([rates[name] for name in cell[drawn]])
    found = choose_threshold(
        p, [sample_of(p[drawn], rate, right[drawn], cells)], options.precision, confidence
    )
    if found is None:
        raise SystemExit(
            f"improve: {budget} verdicts show no threshold for a precision of {options.precision:g}"
        )
    print(f"improve: {found.statement()}", flush=True)
    kept = p >= np.float32(found.threshold)
    kept[drawn[~right[drawn]]] = False
    return kept


def write_dataset(folder: Path, style: Drawn, kept: np.ndarray, old: Sequence[Scene]) -> None:
    """The kept masks, and all phrases of the old scenes with their true ones, as an annotation dataset."""
    rows = [embedded_row(one, [(p.text, one.mask(p)) for p in one.phrases], "old") for one in old]
    for number, scene in enumerate(style.scenes):
        at = np.flatnonzero(kept & (style.places[:, 0] == number))
        labels = [(scene.phrases[style.places[i, 1]].text, style.masks[i]) for i in at]
        if labels:
            rows.append(embedded_row(scene, labels, "new"))
    write_rows(folder, rows)


def take_round(number: int, model: str, options: Any, work: Path) -> str:
    """Annotate, audit, keep, train: where the new model is. A step that was done is skipped."""
    data, run = work / f"data-{number}", work / f"run-{number}"
    load = partial(SSPSAM.from_pretrained, device=options.device)
    if not (data / "_import.json").exists():
        names = (*SIGNALS, *VERIFICATION_SIGNALS[options.verify], *DERIVED)
        style = annotate(load(model), STYLE, options.scored, options.scenes, options.verify)
        known = annotate(load(model), "validation", 0, options.known, options.verify)
        kept = keep(style, known, names, options, number)
        true = style.iou[kept]
        print(
            f"improve: round {number}: {kept.sum():,} of {len(kept):,} masks kept, truly"
            f" {(true >= 0.5).mean():.3f} right with mean IoU {true.mean():.3f} (all:"
            f" {(style.iou >= 0.5).mean():.3f}, {style.iou.mean():.3f})",
            flush=True,
        )
        write_dataset(data, style, kept, list(scenes("practice", 0, options.old)))
    run_stages(
        (replace(RECIPES["finetune-towers"][0], **settings(options.settings)),),
        run,
        data=RecordData(
            DataConfig(str(data), "annotations", split="all"), options=RecordOptions(flip=0.5, translate=True)
        ),
        source=options.model,
        device=options.device,
        say=partial(print, flush=True),
    )
    return str(run / "model")


def scores(model: str, options: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Of the style and of held-out scenes."""
    loaded = SSPSAM.from_pretrained(model, device=options.device)
    return score(loaded, STYLE, options.scored), score(loaded, "heldout", options.scored)


def improve(options: Any, work: Path) -> None:
    """All rounds, and the last line."""
    model, before = options.model, scores(options.model, options)
    print(f"improve: before: twemoji {before[0]}, held-out {before[1]}", flush=True)
    after = before
    for number in range(1, options.rounds + 1):
        model = take_round(number, model, options, work)
        after = scores(model, options)
        print(f"improve: after round {number}: twemoji {after[0]}, held-out {after[1]}", flush=True)
    print(
        f"twemoji before after: mIoU {before[0]['mIoU']:.3f} {after[0]['mIoU']:.3f}, N-acc"
        f" {before[0]['N-acc']:.3f} {after[0]['N-acc']:.3f}; held-out mIoU {before[1]['mIoU']:.3f}"
        f" {after[1]['mIoU']:.3f}, N-acc {before[1]['N-acc']:.3f} {after[1]['N-acc']:.3f} ({options.verdicts}"
        f" verdicts in {options.rounds} rounds, precision {options.precision:g}, {options.scenes} scenes of"
        f" the style, {options.old} old ones, verify {options.verify}; {options.settings})"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--work", type=Path, help="folder that keeps datasets and runs; a temporary one if left out"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--verdicts", type=int, default=200, help="in all rounds together")
    parser.add_argument("--precision", type=float, default=0.8)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--verify", default="none", choices=tuple(VERIFICATION_SIGNALS))
    parser.add_argument("--scenes", type=int, default=600, help="of the style, to label and train on")
    parser.add_argument(
        "--old", type=int, default=300, help="scenes of the known styles to train on with them"
    )
    parser.add_argument("--known", type=int, default=200, help="scenes that the calibration is learnt from")
    parser.add_argument("--scored", type=int, default=150, help="scenes of each kind")
    parser.add_argument(
        "--settings", default="epochs=3", metavar="'NAME=VALUE ...'", help="other than the recipe's"
    )
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        improve(options, options.work or Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
