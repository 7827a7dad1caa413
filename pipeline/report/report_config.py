"""What `sspsam report` can be told."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated

from cyclopts import Parameter

from pipeline.sources.flags import StorageOptions
from sspsam.errors import ConfigError


@dataclass(frozen=True)
class ReportConfig:
    """One report.

    Args:
        output: annotation dataset, a folder or URL (s3://bucket/output)
        page: HTML file to write (OUTPUT/report.html if OUTPUT is local, else ./report.html)
        sheet: PNG file to write (the page's name with .png)
        truth: true masks in the same schema, keys and phrases: shows IoU (OUTPUT/truth, if it exists)
        tiles: images a section
        phrases: rows of the table of phrases
        seed: of the random samples
        memory_mb: DuckDB's memory limit, MiB
        threads: files read, and images decoded, at the same time
        image_root: where INPUT is now, another place that images may be read from, or FROM=TO; repeatable
        storage_options: options of fsspec for all URLs, as JSON
    """

    output: str
    _: KW_ONLY
    page: Annotated[str | None, Parameter(alias="-o")] = None
    sheet: str | None = None
    truth: str | None = None
    tiles: int = 12
    phrases: int = 40
    seed: int = 0
    memory_mb: int = 1024
    threads: int = 8
    image_root: tuple[str, ...] = ()
    storage_options: StorageOptions = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("tiles", 1), ("phrases", 1), ("memory_mb", 128), ("threads", 1)):
            if getattr(self, name) < least:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} {getattr(self, name)} is too little: give {least} or more")
        if self.tiles > 200:
            raise ConfigError(f"--tiles {self.tiles}: the page holds its images, so at most 200")
