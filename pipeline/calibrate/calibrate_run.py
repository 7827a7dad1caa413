"""`calibrate`: from a labelled dataset to a calibration file, and from that to p_correct in a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.calibrate.fit import FOLDS, MIN_LABELS, THRESHOLDS, fit_part, folds
from pipeline.calibrate.judge import judge, ranks, risk_coverage
from pipeline.calibrate.labelled_phrases import Labels, read_labels
from pipeline.dataset.calibration import DERIVED, FORMAT, VERSION, Calibration, predict
from pipeline.dataset.data_card import write_made_card
from pipeline.dataset.destination import Destination
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_index import Index
from sspsam.errors import DataError
from sspsam.storage.secrets import redact

MANIFEST = "_calibration.json"


def calibrate(
    source: str,
    truth: str | None = None,
    *,
    memory_mb: int = 1024,
    threads: int = 8,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The values of a calibration file, learnt from the labels of the dataset `source`.

    truth: dataset of true masks of the same images and phrases; None takes the verdicts in `source`.
    Raises DataError if there is no label, or too few to learn anything.
    """
    dataset = open_dataset(source, storage_options=storage_options)
    index = Index(dataset, memory_mb=memory_mb, threads=threads)
    try:
        index.refresh()
        labels = read_labels(index, truth, memory_mb=memory_mb, threads=threads)
    finally:
        index.close()
    return learn(labels) | {
        "labels": {
            "kind": "truth" if labels.graded else "verdicts",
            "of": redact(truth or source),
            "phrases": len(labels.quality),
            "images": len(labels.used),
            "used": list(labels.used),
        }
    }


def learn(labels: Labels) -> dict[str, Any]:
    """Both parts, and how good they are on images that they did not see. Raises DataError."""
    parts: dict[str, Any] = {}
    judged: dict[str, Any] = {}
    for name, at in (("target", labels.has_target), ("no_target", ~labels.has_target)):
        given = labels.features[at], labels.quality[at], labels.images[at]
        parts[name] = fit_part(labels.names, *given, labels.graded, name == "target")
        judged[name] = _judged(labels, name, *given) if parts[name] else {"phrases": int(at.sum())}
    if not any(parts.values()):
        raise DataError(
            f"{len(labels.quality)} labelled phrases are too few to learn from: at least {MIN_LABELS} with a"
            f" target or without, of {FOLDS} images"
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "features": list(labels.names),
        "parts": parts,
        "judged": judged,
    }


def _judged(
    labels: Labels, name: str, features: np.ndarray, quality: np.ndarray, images: np.ndarray
) -> dict[str, Any]:
    """Cross-validated numbers: what is learnt is learnt anew without the images it is judged on."""
    wanted = list(THRESHOLDS) if labels.graded else ["p_correct"]
    found = {one: np.full(len(quality), np.nan) for one in wanted}
    for train, test in folds(images):
        given = features[train], quality[train], images[train]
        part = fit_part(labels.names, *given, labels.graded, name == "target")
        for one, values in predict(part, features[test]).items():
            found[one][test] = values
    known = ~np.isnan(found["p_correct"])
    if not known.any():
        return {"phrases": len(quality)}
    numbers: dict[str, Any] = {"phrases": len(quality)}
    for one in wanted:
        numbers[one] = judge(found[one][known], quality[known] >= THRESHOLDS[one])
    confidences: dict[str, Any] = {"p_correct": found["p_correct"]}
    signals = [signal for signal in labels.names if signal not in DERIVED]
    confidences |= {signal: features[:, labels.names.index(signal)] for signal in signals}
    numbers["alone"] = {
        one: {
            "aurc": risk_coverage(values[known], quality[known] < 0.5),
            "spearman": ranks(values[known], quality[known]),
        }
        for one, values in confidences.items()
    }
    return numbers


def apply(
    source: str,
    calibration: Calibration,
    destination: str,
    *,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `source` to `destination` with p_correct and p_correct_75; return its `_calibration.json`.

    Verdicts and audits of `source` are copied. Raises ConfigError (a flag, an existing destination, a signal
    that the calibration needs) or DataError (a file).
    """
    options = dict(storage_options or {})
    dataset = open_dataset(source, storage_options=options)
    calibration.require(dataset.signals())
    output = Destination(destination, MANIFEST, options)
    output.begin(overwrite=overwrite, sources=[source])
    images = phrases = 0
    nothing = calibration.apply(dataset.schema.empty_table())
    for file in dataset.files:
        tables = [calibration.apply(table) for table in dataset.read_batches(file)]
        table = pa.concat_tables([nothing, *tables])
        output.store.put_table(file.path.removeprefix(f"{dataset.root}/"), table)
        images += table.num_rows
        phrases += pc.sum(pc.list_value_length(table["annotations"])).as_py() or 0
    for folder in ("reviews", "audits"):
        for file in dataset.list_files(folder):
            output.store.put(file.path.removeprefix(f"{dataset.root}/"), dataset.fs.cat_file(file.path))
    manifest = {
        "version": 1,
        "source": dataset.url,
        "calibration": {**dict(calibration.values), "sha256": calibration.sha256},
        "images": images,
        "phrases": phrases,
        "image_places": dataset.image_places.to_json(),
        "run": dataset.run() or None,
    }
    output.finish(manifest)
    write_made_card(
        output.store, ("sspsam", "calibrate", source, "--calibration", "FILE", "--to", destination), manifest
    )
    return {"complete": True, **manifest}


def to_bytes(values: Mapping[str, Any]) -> bytes:
    """The file of a calibration's values."""
    return Calibration(values, "", "").to_json()
