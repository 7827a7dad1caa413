"""Does the guarantee of `curate --precision` hold? Audits of generated scenes, of which the truth is known.

    python -m benchmarks.guarantee [--scenes 300] [--audits 500] [--verdicts 200] [--precision 0.95]

A calibration learnt from scenes of the split `validation` gives p_correct on the splits `heldout` and
`heldout-style` (drawings of the style twemoji, which the model never saw). Audits are drawn as `sspsam audit`
does, labelled by the truth, and handed to what `curate --precision` uses; of what each threshold keeps the
true precision is counted. The last line says in how many of the audits that returned a threshold it reached
the target.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.calibrate.fit import fit_part
from pipeline.dataset.audit_sample import draw, sample_of
from pipeline.dataset.calibration import predict
from pipeline.dataset.threshold_guarantee import choose_threshold, look_confidence
from sspsam import SSPSAM, Segmenter
from sspsam.scenes import scenes
from sspsam.schema import SIGNALS

SPLITS = ("heldout", "heldout-style")
FEATURES = (*SIGNALS, "area_fraction", "target_pixels", "words")


def measure(segmenter: Segmenter, split: str, count: int) -> pd.DataFrame:
    """FEATURES, true `iou` and `scene` of every mask that was drawn, a row each."""
    rows = []
    for scene in scenes(split, 0, count):
        phrases = [phrase.text for phrase in scene.phrases]
        for phrase, mask in zip(scene.phrases, segmenter.segment([scene.image], [phrases])[0], strict=True):
            if mask.has_target:
                drawn, true = mask.decode(), scene.mask(phrase)
                told = {name: getattr(mask, name) for name in (*SIGNALS, "target_pixels")}
                told |= {"area_fraction": mask.area / drawn.size, "words": len(phrase.text.split())}
                rows.append(told | {"iou": (drawn & true).sum() / (drawn | true).sum(), "scene": scene.key})
    return pd.DataFrame(rows)


def coverage(
    p: np.ndarray, right: np.ndarray, audits: int, verdicts: int, precision: float, confidence: float
) -> tuple[int, int, float]:
    """(audits that returned a threshold, those of them whose precision is reached, mean yield of the former).

    p: (N,) p_correct of the masks. right: (N,) bool, the truth.
    """
    p = p.astype(np.float32)
    returned = reached = 0
    kept_share = 0.0
    for seed in range(audits):
        drawn, names, cells = draw(p, np.ones(len(p), bool), verdicts, precision, confidence, seed)
        rates = {cell.name: cell.rate for cell in cells}
        rate = np.array([rates[name] for name in names[drawn]])
        found = choose_threshold(p, [sample_of(p[drawn], rate, right[drawn], cells)], precision, confidence)
        if found is not None:
            kept = p >= np.float32(found.threshold)
            returned += 1
            reached += bool(right[kept].mean() >= precision)
            kept_share += float(kept.mean())
    return returned, reached, kept_share / max(1, returned)


def report(
    frames: dict[str, tuple[np.ndarray, np.ndarray]], audits: int, verdicts: int, precision: float
) -> None:
    """Print a line for each named (p_correct, right), then the line `coverage of the guarantee`."""
    said = []
    for name, (p, right) in frames.items():
        returned, reached, kept = coverage(p, right, audits, verdicts, precision, look_confidence(0.95, 1))
        share = f"{reached / returned:.3f}" if returned else "-"
        print(
            f"{name}: {len(p):,} masks, {right.mean():.3f} right; {returned} of {audits} audits of {verdicts}"
            f" verdicts gave a threshold, {reached} of them reached {precision:g}; mean yield {kept:.3f}"
        )
        said.append(f"{name} {share} of {returned} (missed in {(returned - reached) / audits:.3f} of all)")
    print(f"coverage of the guarantee {'; '.join(said)}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--audits", type=int, default=500)
    parser.add_argument("--verdicts", type=int, default=200)
    parser.add_argument("--precision", type=float, default=0.95)
    options = parser.parse_args(argv)
    segmenter = Segmenter(SSPSAM.from_pretrained(options.model))
    seen = measure(segmenter, "validation", options.scenes)
    features = seen[list(FEATURES)].to_numpy(float)
    part = fit_part(
        FEATURES, features, seen["iou"].to_numpy(float), pd.factorize(seen["scene"])[0], True, True
    )
    frames = {}
    for split in SPLITS:
        found = measure(segmenter, split, options.scenes)
        p = predict(part, found[list(FEATURES)].to_numpy(float))["p_correct"]
        frames[split] = p, found["iou"].to_numpy(float) >= 0.5
    report(frames, options.audits, options.verdicts, options.precision)
    return 0


if __name__ == "__main__":
    sys.exit(main())
