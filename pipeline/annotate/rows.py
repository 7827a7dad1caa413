"""Annotation rows: what one image's row holds, whatever became of the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.phrases import LANGUAGE, Phrase
from pipeline.sources import Sample
from sspsam.errors import SSPSAMError
from sspsam.schema import IMAGE_REF_TYPE, annotation_schema
from sspsam.storage.secrets import redact

if TYPE_CHECKING:
    from sspsam.inference.masks import Mask
    from sspsam.inference.results import ImageResult

#: (kind, message): why a sample has no masks.
Reason = tuple[str, str]

#: Kinds that this package adds to those of `sspsam.errors` and of the readers.
KILLED_WORKER = "killed_worker"
PHRASE_SOURCE = "phrase_source"
UNEXPECTED = "unexpected"
EMPTY_CAPTION = "empty_caption"
NO_PHRASE_FOUND = "no_phrase_found"

_MESSAGE_CHARACTERS = 500


def annotation_struct(phrase: Phrase, mask: Mask) -> dict[str, Any]:
    """One element of `annotations`: the phrase, where it stands in the caption, and its mask."""
    return {
        "phrase": phrase.text,
        "start": phrase.start,
        "end": phrase.end,
        "has_target": mask.has_target,
        "segmentation": mask.rle,
        "bbox": mask.bbox,
        "predicted_box": mask.predicted_box,
        "area": mask.area,
        "target_pixels": mask.target_pixels,
        "score": mask.score,
        "predicted_iou": mask.predicted_iou,
        "stability": mask.stability,
        "box_agreement": mask.box_agreement,
        "clip_score": mask.clip_score,
        "truncated": mask.truncated,
        **mask.verification,
    }


def annotation_row(
    sample: Sample,
    shard: str,
    phrases: Sequence[Phrase],
    result: ImageResult | None,
    reason: Reason | None,
    embed_image: bool,
    why_none: Reason | None = None,
) -> dict[str, Any]:
    """The row of one sample.

    Args:
        result: what the Segmenter made of the image; None if it was not run on it.
        reason: why it was not; None takes the result's own error, if any.
        why_none: why there are no phrases, if the phrase source knows.
    """
    if result is not None and result.error is not None:
        reason = (result.error.kind, str(result.error))
    row: dict[str, Any] = {
        "key": sample.key,
        "shard": shard,
        "index": sample.index,
        "status": "error" if reason else ("ok" if phrases else "no_phrase"),
        "width": result.width if result else None,
        "height": result.height if result else None,
        "caption": sample.caption,
        "phash": result.phash if result else None,
        "annotations": [],
        "image_ref": sample.ref,
        "image": {"bytes": sample.image, "path": sample.key} if embed_image else None,
    }
    if reason is None and result is not None and phrases:
        pairs = zip(phrases, result.masks, strict=True)
        row["annotations"] = [annotation_struct(phrase, mask) for phrase, mask in pairs]
    if reason is None and not phrases:
        reason = why_none or _why_no_phrase(sample)
    row["error"] = {"kind": reason[0], "message": clip(reason[1])} if reason else None
    return row


def rows_table(rows: Iterable[dict[str, Any]], added: Collection[str] = ()) -> pa.Table:
    """The rows under the explicit schema, so that a file without annotations has it too.

    Args:
        added: those of ADDED_SIGNALS that the dataset has.
    """
    return pa.Table.from_pylist(list(rows), schema=annotation_schema(added))


def relative_refs(table: pa.Table, root: str | None) -> pa.Table:
    """The rows, with `image_ref.url` without secrets, and relative to the folder `root` where it is below.

    "." is `root` itself; None leaves all as they are.
    """
    refs = table["image_ref"].combine_chunks()
    url = pa.array([text and redact(text) for text in refs.field("url").to_pylist()], pa.string())
    if root is not None:
        below = pc.starts_with(url, f"{root}/")
        url = pc.if_else(below, pc.utf8_slice_codeunits(url, len(root) + 1), url)
        url = pc.if_else(pc.equal(url, root), ".", url)
    children = [url, *(refs.field(name) for name in ("member", "offset", "length"))]
    moved = pa.StructArray.from_arrays(children, fields=list(IMAGE_REF_TYPE), mask=refs.is_null())
    return table.set_column(table.schema.get_field_index("image_ref"), "image_ref", moved)


def count_rows(table: pa.Table) -> dict[str, Any]:
    """What a table of annotation rows holds, counted from it.

    Returns:
        `samples`, `ok`, `no_phrase`, `language` (those of `no_phrase` in a language that is not read),
        `error`, `phrases`, `masks` (with a target), and `kinds`, the number of error rows by kind.
    """
    statuses = Counter(table["status"].to_pylist())
    why: Counter[tuple[str, str]] = Counter()
    if statuses["error"] or statuses["no_phrase"]:
        errors = zip(table["status"].to_pylist(), table["error"].to_pylist(), strict=True)
        why.update((status, error["kind"]) for status, error in errors if error)
    flags = table["annotations"].combine_chunks().flatten().field("has_target")
    return {
        "samples": table.num_rows,
        "ok": statuses["ok"],
        "no_phrase": statuses["no_phrase"],
        "language": why["no_phrase", LANGUAGE],
        "error": statuses["error"],
        "phrases": len(flags),
        "masks": sum(flag is True for flag in flags.to_pylist()),
        "kinds": {kind: number for (status, kind), number in sorted(why.items()) if status == "error"},
    }


def reason_of(error: BaseException) -> Reason:
    """The reason that an exception gives a row: its own kind if it is ours."""
    if isinstance(error, SSPSAMError):
        return error.kind, str(error)
    return UNEXPECTED, f"{type(error).__name__}: {error}"


def clip(text: str) -> str:
    """A message on one line, cut to a length that suits a row."""
    line = redact(" ".join(text.split()))
    return line if len(line) <= _MESSAGE_CHARACTERS else line[: _MESSAGE_CHARACTERS - 3] + "..."


def _why_no_phrase(sample: Sample) -> Reason:
    if sample.caption is None or not sample.caption.strip():
        return EMPTY_CAPTION, "the image has no caption, or an empty one, and no phrase from elsewhere"
    return NO_PHRASE_FOUND, (
        "nothing to ask for: the caption names no thing in English (--phrases whole asks for all of it), "
        "or the column or function that --phrases names gave no phrase"
    )
