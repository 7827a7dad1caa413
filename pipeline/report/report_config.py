"""What `sspsam report` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sspsam.errors import ConfigError


@dataclass(frozen=True)
class ReportConfig:
    """One report. Paths left out stand beside a local dataset, or in the current folder."""

    output: str  # folder or fsspec URL of the annotation dataset
    page: str | None = None  # HTML file to write; None: report.html
    sheet: str | None = None  # PNG file to write; None: the page's name with .png
    truth: str | None = None  # dataset of true masks; None: OUTPUT/truth where that exists
    tiles: int = 12  # images a section
    phrases: int = 40  # rows of the table of phrases
    seed: int = 0  # of the random sections
    memory_mb: int = 1024  # DuckDB's limit, MiB
    threads: int = 8  # files read, and images decoded, at the same time
    storage_options: dict[str, Any] = field(default_factory=dict)  # of fsspec, for all URLs

    def __post_init__(self) -> None:
        for name, least in (("tiles", 1), ("phrases", 1), ("memory_mb", 128), ("threads", 1)):
            if getattr(self, name) < least:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} {getattr(self, name)} is too little: give {least} or more")
        if self.tiles > 200:
            raise ConfigError(f"--tiles {self.tiles}: the page holds its images, so at most 200")
