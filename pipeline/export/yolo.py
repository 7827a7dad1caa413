"""YOLO segmentation: one text file an image, one polygon a line (https://docs.ultralytics.com/datasets/segment/).

A line holds one polygon without holes. A mask with holes or several parts is cut open: a bridge of no width
leads from one ring to the next and back, as Ultralytics' own converter does for parts. Readers draw the
bridge one pixel wide, so such masks come back with a line too much; others come back exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from pipeline.export.image_stream import ExportImage, ExportJob


def write(job: ExportJob) -> None:
    """`data.yaml`, `images/<split>/` and `labels/<split>/`; classes count from 0."""
    for split in job.splits:
        for image in job.images(split):
            job.place(image, f"images/{split}")
            lines = "".join(f"{line}\n" for line in label_lines(image))
            job.destination.store.put(f"labels/{split}/{image.name}.txt", lines.encode())
    config = {
        "path": ".",
        **{split: f"images/{split}" for split in job.splits},
        "names": dict(enumerate(job.categories.names)),
    }
    text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False, width=10**6)
    job.destination.store.put("data.yaml", text.encode())


def label_lines(image: ExportImage) -> list[str]:
    """One line a mask: class and x y pairs as shares of width and height."""
    lines = []
    for mask in image.masks:
        shares = polygon(mask.decode()) / np.array([image.width, image.height])
        lines.append(" ".join([str(mask.category), *(f"{share:.7g}" for share in shares.ravel())]))
    return lines


def polygon(mask: np.ndarray) -> np.ndarray:
    """(P, 2) float x y of one polygon around a boolean mask, pixel centres as whole numbers."""
    import cv2

    found, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings: list[Any] = [ring[:, 0, :] for ring in found]
    outer = [at for at in range(len(rings)) if tree[0, at, 3] < 0]
    joined: Any = np.zeros((0, 2), dtype=np.int64)
    for at in outer:
        part = rings[at]
        for hole in (other for other in range(len(rings)) if tree[0, other, 3] == at):
            part = _bridged(part, rings[hole])
        joined = _bridged(joined, part) if len(joined) else part
    while len(joined) < 3:  # a polygon has three points, also where two of them are one
        joined = np.concatenate([joined, joined[-1:]])
    return np.asarray(joined, dtype=np.float64)


def _bridged(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Both rings as one, over the shortest way between two of their points and back."""
    distances = ((first[:, None, :] - second[None, :, :]).astype(np.int64) ** 2).sum(axis=2)
    start, end = np.unravel_index(np.argmin(distances), distances.shape)
    turned = np.roll(second, -int(end), axis=0)
    return np.concatenate([first[: start + 1], turned, turned[:1], first[start:]])
