"""`sspsam agree FIRST SECOND DEST`: how far a second model agrees, as a signal of every mask."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.options import check_memory, print_json, run
from pipeline.sources.flags import StorageOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset."""
    return run(agree, argv, "curate")


def agree(
    first: str,
    second: str,
    dest: str,
    /,
    *,
    overwrite: bool = False,
    memory_mb: int = 1024,
    json: bool = False,
    storage_options: StorageOptions | None = None,
) -> int:
    """Write FIRST to DEST with the field `agreement`: the IoU of each mask with SECOND's for the same phrase.

    Args:
        first: annotation dataset, folder or fsspec URL (only read)
        second: another model's run on the same images and phrases (only read)
        dest: new folder or fsspec URL; curate --where "agreement > 0.8" works on it
        overwrite: replace a DEST that agree wrote
        memory_mb: MiB that DuckDB may hold
        json: print _agreement.json
        storage_options: options of fsspec, as JSON
    """
    check_memory(memory_mb)
    from pipeline import stats

    found = stats.agree(
        first, second, dest, overwrite=overwrite, memory_mb=memory_mb, storage_options=storage_options
    )
    if json:
        print_json(found)
        return 0
    mean = "-" if found["mean_agreement"] is None else f"{found['mean_agreement']:.3f}"
    print(
        f"{dest}: {found['images']:,} images, {found['phrases']:,} phrases,"
        f" {found['phrases_compared']:,} of them in both, mean agreement {mean}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
