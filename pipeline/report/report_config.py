"""The settings of `sspsam report`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated

from cyclopts import Parameter

from pipeline.sources.flags import StorageOptions
from pipeline.sources.settings import check_settings
from sspsam.errors import ConfigError


@dataclass(frozen=True)
class ReportConfig:
    """One report.

    Args:
        output: annotation dataset, a folder or URL (s3://bucket/output)
        page: HTML file to write (OUTPUT/report.html if OUTPUT is local, else ./report.html)
        sheet: PNG file to write (the page's name with .png)
        truth: ground truth of the same schema, keys and phrases, for IoU (default: OUTPUT/truth if it exists)
        tiles: images a section
        phrases: rows of the table of phrases
        seed: of the random samples
        memory_mb: DuckDB's memory limit, MiB
        threads: files read and images decoded in parallel
        image_root: new location of INPUT, another location to read images from, or FROM=TO; repeatable
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
        check_settings(self, tiles=1, phrases=1, memory_mb=128, threads=1)
        if self.tiles > 200:
            raise ConfigError(f"--tiles {self.tiles}: the page holds its images, so at most 200")
