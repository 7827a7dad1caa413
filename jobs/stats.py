"""`sspsam stats OUTPUT`: counts, phrases, signals, coverage; or how another dataset differs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.options import print_json, run
from pipeline.sources.flags import StorageOptions
from sspsam.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset."""
    return run(stats, argv, "curate")


def stats(
    output: str,
    /,
    *,
    compare: str | None = None,
    top: int = 20,
    coverage_images: int = 5000,
    memory_mb: int = 1024,
    json: bool = False,
    storage_options: StorageOptions | None = None,
) -> int:
    """Statistics of an annotation dataset, or how another one differs from it.

    Args:
        output: annotation dataset, folder or fsspec URL
        compare: another run of the same images, or ground truth (sspsam import)
        top: phrases and changes to list
        coverage_images: images sampled for pixel coverage
        memory_mb: memory limit of DuckDB, MiB
        json: print JSON
        storage_options: options of fsspec, as JSON
    """
    for flag, value, least in (
        ("--top", top, 1),
        ("--coverage-images", coverage_images, 0),
        ("--memory-mb", memory_mb, 64),
    ):
        if value < least:
            raise ConfigError(f"{flag} {value}: at least {least}")
    from rich.console import Console

    from pipeline import stats as statistics
    from pipeline.dataset.opening import open_dataset
    from pipeline.stats.tables import print_comparison, print_summary

    dataset = open_dataset(output, storage_options=storage_options)
    if compare:
        other = open_dataset(compare, storage_options=storage_options)
        found = statistics.compare(dataset, other, top=top, memory_mb=memory_mb)
    else:
        found = statistics.summarise(dataset, top=top, coverage_images=coverage_images, memory_mb=memory_mb)
    if json:
        print_json(found)
    else:
        (print_comparison if compare else print_summary)(found, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
