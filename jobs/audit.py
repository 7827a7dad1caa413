"""`sspsam audit DATASET --budget N`: look at a drawn sample of masks, and learn how right all of them are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.options import check_memory, print_json, run, serve_page
from pipeline.sources.flags import StorageOptions
from sspsam.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset."""
    return run(audit, argv, "curate,trust")


def audit(
    dataset: str,
    /,
    *,
    budget: int = 200,
    precision: float = 0.95,
    confidence: float = 0.95,
    reviewer: str | None = None,
    seed: int = 0,
    summary: bool = False,
    json: bool = False,
    open: bool = False,
    host: str = "127.0.0.1",
    port: int = 8642,
    memory_mb: int = 1024,
    image_root: tuple[str, ...] = (),
    storage_options: StorageOptions | None = None,
) -> int:
    """Draw phrases to look at, open them as a queue in the browser, and say how right the dataset is.

    The queue ends with Ctrl-C and goes on with the same command. What it found is printed at its end.

    Args:
        dataset: annotation dataset with p_correct, folder or URL (only reviews/ and audits/ are written)
        budget: draws, each a verdict but for phrases that are drawn twice
        precision: of `curate --precision` later, for which the sample is drawn
        confidence: of the intervals, and of the promise
        reviewer: name of who looks; each has verdicts of his own, and how far they agree is said
        seed: of the draws
        summary: open nothing, say what the verdicts so far mean
        json: print that as JSON
        open: open the page in the browser
        host: address to listen on
        port: TCP port; 0 takes a free one
        memory_mb: MiB that DuckDB may hold
        image_root: new location of INPUT, another location to read images from, or FROM=TO; repeatable
        storage_options: options of fsspec, as JSON
    """
    for name, share in (("precision", precision), ("confidence", confidence)):
        if not 0.5 <= share < 1:
            raise ConfigError(f"--{name} {share}: from 0.5 to below 1")
    if not 1 <= budget <= 100_000:
        raise ConfigError(f"--budget {budget}: from 1 to 100,000 draws")
    check_memory(memory_mb)
    from pipeline import audit as audits
    from pipeline.dataset.audit_sample import read_audits
    from pipeline.dataset.opening import open_dataset

    options: dict[str, Any] = dict(storage_options or {})
    opened = open_dataset(dataset, storage_options=options)
    if not summary:
        given = {"precision": precision, "confidence": confidence, "seed": seed, "memory_mb": memory_mb}
        begun = audits.begin(opened, budget, **given)  # type: ignore[arg-type]
        _serve(begun.name, dataset, open, reviewer, host, port, image_root, options)
    found = audits.summarise_audits(opened, read_audits(opened), confidence)
    if json:
        print_json(found)
    elif not found["phrases"]:
        print(
            f"nothing has been drawn yet: `sspsam audit {opened.url}` draws phrases and opens them as a queue"
        )
    else:
        _print(found)
    return 0


def _serve(
    name: str, dataset: str, open: bool, reviewer: str | None, host: str, port: int, roots: Any, options: Any
) -> None:
    from pipeline.view import ViewConfig

    config = ViewConfig(
        dataset,
        host=host,
        port=port,
        audit=name,
        reviewer=reviewer,
        image_root=roots,
        storage_options=options,
    )

    serve_page(config, f"Audit {name} of {dataset}", open)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("by", "stratum", "phrases", "draws", "right", "interval", title_justify="left")
    for one in found["rates"]:
        size = "" if one["stands_for"] is None else f"{one['stands_for']:,}"
        interval = f"{one['low']:.3f} to {one['high']:.3f}"
        table.add_row(one["by"], one["stratum"], size, str(one["draws"]), f"{one['right']:.3f}", interval)
    console = Console()
    console.print(table)
    said = f"{found['decided']:,} of {found['phrases']:,} phrases have a verdict"
    if found["median_seconds"] is not None:
        said += f", {found['median_seconds']:.1f} s each (median)"
    console.print(said)
    for pair in found["reviewers"]["pairs"]:
        kappa = "-" if pair["kappa"] is None else f"{pair['kappa']:.2f}"
        names = f"{pair['first'] or 'unnamed'} and {pair['second'] or 'unnamed'}"
        console.print(f"{names} agree on {pair['same']:.1%} of {pair['phrases']:,} (Cohen's kappa {kappa})")


if __name__ == "__main__":
    sys.exit(main())
