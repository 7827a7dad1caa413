"""The annotation schema: one row an image, one struct a phrase. `docs/schema.md` explains each field.

Every file of a dataset is written with this explicit schema, because an inferred one turns a file
whose images have no annotations into `list<null>`, and readers then refuse the folder.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Final

import pyarrow as pa

#: Bumped when a field changes meaning or type; stands in the file metadata as `sspsam.schema`.
SCHEMA_VERSION: Final = "1"

#: The values of `status`.
STATUSES: Final = ("ok", "no_phrase", "error")

#: The quality signals of an annotation, all of them "higher is better", null where undefined.
SIGNALS: Final = ("score", "predicted_iou", "stability", "box_agreement", "clip_score")

#: Signals of `annotate --verify` and of other commands, and what each holds: float32, null where unknown,
#: behind an annotation's other fields in this order. A dataset for which they were not asked has none.
ADDED_SIGNALS: Final = {
    "expected_iou": "IoU of mask and truth if each pixel's probability were right",
    "paraphrase_iou": "IoU with the mask of the same phrase said otherwise",
    "edge_iou": "IoU with the mask redrawn along the image's edges",
    "edge_contrast": "how much steeper the image is on the mask's contour than around it",
    "rival_margin": "score less the mean probability that the strongest rival phrase gives the same pixels",
    "rival_iou": "IoU with the mask of the rival phrase that is most like it; lower is better",
    "shared_region": "highest IoU with the masks of the image's other phrases",
    "flip_iou": "IoU with the mask of the mirrored image, mirrored back",
    "scale_iou": "lesser IoU with the masks of the image shrunk into two corners, enlarged again",
    "views_iou": "IoU of mask and truth if the mean probability of all these views were right",
    "clip_margin": "CLIP's cosine of the cut-out mask and the phrase less that of its nearest rival",
    "agreement": "IoU with another model's mask of the same phrase",
    "p_correct": "probability that the mask has an IoU of 0.5, or, without a target, that nothing is there",
    "p_correct_75": "the same for an IoU of 0.75",
}
_FAST = (
    "expected_iou",
    "paraphrase_iou",
    "edge_iou",
    "edge_contrast",
    "rival_margin",
    "rival_iou",
    "shared_region",
)

#: What each level of `annotate --verify` adds to an annotation; a level has what the one before it has.
VERIFICATION_SIGNALS: Final[dict[str, tuple[str, ...]]] = {
    "none": (),
    "fast": _FAST,
    "full": (*_FAST, "flip_iou", "scale_iou", "views_iou", "clip_margin"),
}

#: COCO RLE: `size` is [height, width]; `counts` is COCO's compressed string, column-major runs.
#: No list here has a fixed length in its type: pyarrow before 26 cannot read a null of such a list.
RLE_TYPE: Final = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])

#: [x, y, width, height] in pixels of the original image (after EXIF orientation), origin top left.
BOX_TYPE: Final = pa.list_(pa.float32())

ANNOTATION_TYPE: Final = pa.struct(
    [
        ("phrase", pa.string()),
        ("start", pa.int32()),  # character span in `caption`; null if the phrase is not from it
        ("end", pa.int32()),
        ("has_target", pa.bool_()),
        ("segmentation", RLE_TYPE),
        ("bbox", BOX_TYPE),
        ("predicted_box", BOX_TYPE),
        ("area", pa.int64()),  # pixels of the original image
        ("target_pixels", pa.int32()),  # positive pixels in the scoring square: decides has_target
        ("score", pa.float32()),
        ("predicted_iou", pa.float32()),
        ("stability", pa.float32()),
        ("box_agreement", pa.float32()),
        ("clip_score", pa.float32()),
        ("truncated", pa.bool_()),  # the phrase had more tokens than the text tower takes
    ]
)

#: Where the image's encoded bytes are. `member`: name in a tar, path in a folder, or row number in a
#: Parquet file. `offset`/`length`: the member's bytes in a plain tar, else null.
IMAGE_REF_TYPE: Final = pa.struct(
    [
        ("url", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)

#: Encoded image as Hugging Face `datasets` stores it; null unless images are embedded.
IMAGE_TYPE: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

ERROR_TYPE: Final = pa.struct([("kind", pa.string()), ("message", pa.string())])

ANNOTATION_SCHEMA: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),  # position of the sample in its shard, from 0
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", ERROR_TYPE),
        pa.field("width", pa.int32()),  # pixels, after EXIF orientation
        pa.field("height", pa.int32()),
        pa.field("caption", pa.string()),
        pa.field("annotations", pa.list_(ANNOTATION_TYPE)),
        pa.field("phash", pa.int64()),  # 64-bit difference hash of the image, for near-duplicates
        pa.field("image_ref", IMAGE_REF_TYPE),
        pa.field("image", IMAGE_TYPE),
    ],
    metadata={"sspsam.schema": SCHEMA_VERSION},
)


def annotation_schema(added: Collection[str] = ()) -> pa.Schema:
    """ANNOTATION_SCHEMA with those of ADDED_SIGNALS that `added` names in each annotation."""
    return _with_signals(tuple(name for name in ADDED_SIGNALS if name in added))


@functools.cache  # to make it takes as long as to encode some images
def _with_signals(added: tuple[str, ...]) -> pa.Schema:
    fields = [(name, pa.float32()) for name in added]
    place = ANNOTATION_SCHEMA.get_field_index("annotations")
    annotation = pa.struct([*ANNOTATION_TYPE, *fields])
    return ANNOTATION_SCHEMA.set(place, pa.field("annotations", pa.list_(annotation)))


#: What each field holds, in one sentence's words, by its path. `docs/schema.md` says more.
DESCRIPTIONS: Final = {
    "key": "the sample's key: name of the tar's members, row number of a Parquet file, path of a file",
    "shard": "name of the shard",
    "index": "position of the sample in its shard, from 0",
    "status": "ok, no_phrase or error",
    "error": "why there are no annotations",
    "error.kind": "kind of the error, by which errors are counted",
    "error.message": "what happened, and what to do about it",
    "width": "pixels, after EXIF orientation",
    "height": "pixels, after EXIF orientation",
    "caption": "the caption as it was read",
    "annotations": "one element a phrase, in the order of the phrases",
    "annotations.phrase": "the phrase: the referring expression that was segmented",
    "annotations.start": "first character of the phrase in caption",
    "annotations.end": "one past its last character",
    "annotations.has_target": "whether the image shows it",
    "annotations.segmentation": "the mask as COCO RLE",
    "annotations.segmentation.size": "height and width of the mask in pixels",
    "annotations.segmentation.counts": "COCO's compressed string: runs down the columns",
    "annotations.bbox": "box of the mask: x, y, width, height in pixels, origin at the top left",
    "annotations.predicted_box": "box of the model's box head",
    "annotations.area": "pixels of the mask",
    "annotations.target_pixels": "positive pixels in the model's scoring square",
    "annotations.score": "mean foreground probability over the mask",
    "annotations.predicted_iou": "SAM's own estimate of the mask's IoU",
    "annotations.stability": "SAM's stability score: IoU of the masks at logits +1 and -1",
    "annotations.box_agreement": "IoU of bbox and predicted_box",
    "annotations.clip_score": "cosine between the phrase and CLIP's patches under the mask",
    "annotations.truncated": "the phrase had more tokens than the text tower takes",
    "phash": "64-bit difference hash of the image",
    "image_ref": "where the encoded image is",
    "image_ref.url": "the tar, Parquet file, folder or image",
    "image_ref.member": "the name in the tar or folder, or the row number",
    "image_ref.offset": "first byte of the image in a plain tar",
    "image_ref.length": "bytes of the image in a plain tar",
    "image": "the encoded image",
}
