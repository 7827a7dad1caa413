"""`sspsam compact OUTPUT`: a file a shard in place of one a chunk, for datasets of earlier versions."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.options import run
from pipeline.sources.flags import StorageOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 if a shard could not be sealed, or 2 for a wrong flag or dataset."""
    return run(compact, argv, "pipeline,s3")


def compact(output: str, /, *, storage_options: StorageOptions | None = None) -> int:
    """Write each finished shard of an annotation dataset as few large files. `annotate` does so by itself.

    Args:
        output: annotation dataset, folder or fsspec URL
        storage_options: options of fsspec, as JSON
    """
    from pipeline.annotate.compaction import compact as seal_all

    done = seal_all(output, storage_options)
    print(f"{done.sealed:,} shards sealed, {done.before:,} were before")
    if done.unfinished:
        print(f"{done.unfinished:,} shards have not ended: `sspsam annotate` resumes and seals them")
    for problem in done.problems:
        print(problem, file=sys.stderr)
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
