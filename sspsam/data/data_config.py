"""Which benchmark, which split of it, and where its images are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sspsam.errors import ConfigError


@dataclass(frozen=True)
class DataConfig:
    """What to read. Flags of `sspsam evaluate` and `sspsam train` have the fields' names."""

    dataset: str  # folder, file or URL
    format: str  # one of `sspsam.data.FORMATS`
    split: str = "val"  # a split's name, or several with commas
    images: str | None = None  # folder or URL of the images; looked for beside the dataset if None
    split_by: str | None = None  # REFER's maker of the split (unc, umd, google, berkeley)
    limit: int | None = None  # records to read at most
    storage_options: Mapping[str, Any] = field(default_factory=dict)  # for fsspec
    image_root: tuple[str, ...] = ()  # of an annotation dataset: see `sspsam.images.image_places`

    def __post_init__(self) -> None:
        from sspsam.data import FORMATS

        if self.format not in FORMATS:
            raise ConfigError(
                f"--format {self.format}: there is no such format; there are {', '.join(FORMATS)}"
            )
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, not {self.limit}")

    @property
    def as_stored(self) -> bool:
        """Whether masks belong to the pixels as stored, EXIF ignored: in all formats but our own."""
        return self.format not in ("annotations", "scenes")

    @property
    def options(self) -> dict[str, Any]:
        """`storage_options` as fsspec takes them."""
        return dict(self.storage_options)
