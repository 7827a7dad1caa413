"""Counters for Ray's Prometheus endpoint (`docs/grafana-dashboard.json` draws them).

They count what was done, so a chunk that a dead node makes Ray repeat counts twice here; the rows
and the summary count every image once.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.annotate.chunk_receipt import Receipt

#: Stages whose seconds are in a receipt's notes under `<stage>_seconds`.
STAGES = ("read", "phrases", "idle", "decode", "model", "encode", "write")


@cache
def _instruments() -> dict[str, Any]:
    from ray.util.metrics import Counter, Gauge

    return {
        "images": Counter("sspsam_images", "Images annotated.", tag_keys=("status",)),
        "masks": Counter("sspsam_masks", "Masks with a target."),
        "phrases": Counter("sspsam_phrases", "Phrases segmented."),
        "errors": Counter("sspsam_errors", "Error rows.", tag_keys=("kind",)),
        "seconds": Counter("sspsam_stage_seconds", "Seconds by stage.", tag_keys=("stage",)),
        "bytes": Counter("sspsam_bytes", "Bytes of images read, of files written.", ("direction",)),
        "occupancy": Gauge(
            "sspsam_batch_occupancy", "Filled share of the model's batches.", tag_keys=("batch",)
        ),
    }


def count_receipt(receipt: Receipt) -> None:
    """Add one written chunk to the counters of this process."""
    found = _instruments()
    for status in ("ok", "no_phrase", "error"):
        if number := getattr(receipt, status):
            found["images"].inc(number, tags={"status": status})
    for kind, number in receipt.kinds.items():
        found["errors"].inc(number, tags={"kind": kind})
    for name in ("masks", "phrases"):
        if number := getattr(receipt, name):
            found[name].inc(number)
    for stage in STAGES:
        if seconds := receipt.notes.get(f"{stage}_seconds"):
            found["seconds"].inc(seconds, tags={"stage": stage})
    for direction in ("in", "out"):
        if number := receipt.notes.get(f"bytes_{direction}"):
            found["bytes"].inc(number, tags={"direction": direction})
    for batch in ("image", "phrase"):
        share = receipt.notes.get(f"{batch}_occupancy")
        if share is not None:
            found["occupancy"].set(share, tags={"batch": batch})
