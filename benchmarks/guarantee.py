"""Does the guarantee of `curate --precision` hold? Audits of generated scenes, of which the truth is known.

    python -m benchmarks.guarantee [MODEL] [--audits 500] [--verdicts 200] [--precision 0.95] [--table trust]

The tables are those of `benchmarks.trust`, with the signals of `annotate --verify full`. A calibration learnt
from half of the held-out scenes gives p_correct on the other half and on those of the style twemoji, which
the model never saw. Audits are drawn as `sspsam audit` does, labelled by the truth, and handed to what
`curate --precision` uses; of what each threshold keeps the true precision is counted. The last line says in
how many of the audits that returned a threshold it reached the target.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.trust import FEATURES, table
from pipeline.calibrate.fit import fit_part
from pipeline.dataset.audit_sample import draw, sample_of
from pipeline.dataset.calibration import predict, word_counts
from pipeline.dataset.threshold_guarantee import choose_threshold, look_confidence


def populations(tables: Mapping[str, pd.DataFrame]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: p_correct of the masks, (N,) bool whether they are right}, learnt from other scenes' masks."""
    drawn = {split: masks[~masks["is_empty_prediction"]] for split, masks in tables.items()}
    known, scene = drawn["heldout"], pd.factorize(drawn["heldout"]["image"])[0]
    learnt = known[scene % 2 == 0]
    names = (*FEATURES, "words")
    groups = pd.factorize(learnt["image"])[0]
    part = fit_part(names, _features(learnt), learnt["iou"].to_numpy(float), groups, True, True)
    judged = {"held-out": known[scene % 2 == 1], "twemoji": drawn["heldout-style"]}
    return {
        name: (predict(part, _features(masks))["p_correct"], masks["iou"].to_numpy(float) >= 0.5)
        for name, masks in judged.items()
    }


def _features(masks: pd.DataFrame) -> np.ndarray:
    return np.column_stack([masks[list(FEATURES)].to_numpy(float), word_counts(masks["phrase"].to_list())])


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
        said.append(f"{name} {share} of {returned} at {precision:g}, yield {kept:.3f}")
    print(f"coverage of the guarantee: {'; '.join(said)}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--heldout", type=int, default=400, help="scenes of the style that was trained on")
    parser.add_argument("--style", type=int, default=200, help="scenes in a drawing style never trained on")
    parser.add_argument("--audits", type=int, default=500)
    parser.add_argument("--verdicts", type=int, default=200)
    parser.add_argument("--precision", type=float, default=0.95)
    parser.add_argument("--table", type=Path, default=Path("trust"), help="folder of the table of signals")
    options = parser.parse_args(argv)
    counts = {"heldout": options.heldout, "heldout-style": options.style}
    tables = {split: table(options.model, options.table, split, n) for split, n in counts.items()}
    report(populations(tables), options.audits, options.verdicts, options.precision)
    return 0


if __name__ == "__main__":
    sys.exit(main())
