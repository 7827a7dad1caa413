"""`sspsam calibrate DATASET`: how probable it is that a mask is right, learnt from truth or verdicts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.options import check_memory, print_json, run
from pipeline.sources.flags import StorageOptions
from sspsam.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset, or too few labels."""
    return run(calibrate, argv, "curate,trust")


def calibrate(
    dataset: str,
    /,
    *,
    truth: str | None = None,
    verdicts: bool = False,
    calibration: str | None = None,
    out: str = "calibration.json",
    to: str | None = None,
    overwrite: bool = False,
    memory_mb: int = 1024,
    json: bool = False,
    storage_options: StorageOptions | None = None,
) -> int:
    """Learn from labels the probability that a mask is right (IoU at least 0.5, and 0.75), or write it.

    Args:
        dataset: annotation dataset, folder or fsspec URL (only read)
        truth: learn from true masks: a dataset of the same images and phrases
        verdicts: learn from the verdicts on phrases in DATASET/reviews
        calibration: learn nothing; a file that calibrate wrote, for --to
        out: local file to write what was learnt to; the reliability diagram goes beside it as .png
        to: new folder or fsspec URL: DATASET with the signals p_correct and p_correct_75
        overwrite: replace a --to that calibrate wrote
        memory_mb: MiB that DuckDB may hold
        json: print what was judged as JSON
        storage_options: options of fsspec, as JSON
    """
    if (truth is not None) + verdicts + (calibration is not None) != 1:
        raise ConfigError("give one of --truth DATASET, --verdicts, --calibration FILE")
    if calibration is not None and to is None:
        raise ConfigError("--calibration is what to write: --to names the folder for it")
    check_memory(memory_mb)
    from pipeline.calibrate.calibrate_run import apply
    from pipeline.dataset.calibration import Calibration

    options: dict[str, Any] = dict(storage_options or {})
    if calibration is not None:
        used = Calibration.load(calibration, options)
    else:
        used = _learn(dataset, truth, out, memory_mb, json, options)
    if to is not None:
        told = apply(dataset, used, to, overwrite=overwrite, storage_options=options)
        print(f"{to}: {told['images']:,} images, {told['phrases']:,} phrases with p_correct", file=sys.stderr)
    return 0


def _learn(
    dataset: str, truth: str | None, out: str, memory_mb: int, json: bool, options: dict[str, Any]
) -> Any:
    from rich.console import Console

    from pipeline import calibrate as calibration
    from pipeline.calibrate.calibrate_run import to_bytes
    from pipeline.calibrate.diagram import draw_reliability
    from pipeline.calibrate.judged_table import judged_table
    from pipeline.dataset.calibration import Calibration

    if not Path(out).parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {Path(out).parent} does not exist")
    values = calibration.calibrate(dataset, truth, memory_mb=memory_mb, storage_options=options)
    data = to_bytes(values)
    Path(out).write_bytes(data)
    picture = Path(out).with_suffix(".png")
    picture.write_bytes(draw_reliability(values["judged"]))
    if json:
        print_json(values["judged"])
    else:
        console = Console()
        for table in judged_table(values["judged"]):
            console.print(table)
        print(f"{values['labels']['phrases']:,} labelled phrases of {values['labels']['images']:,} images")
        print(f"calibration: {out}\ndiagram:     {picture}")
    return Calibration.parse(data, out)


if __name__ == "__main__":
    sys.exit(main())
