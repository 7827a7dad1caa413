"""The report from end to end: index, compare, count, choose, draw, write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.image_rows import Rows
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.pictures import Pictures
from pipeline.dataset.reviews import Reviews
from pipeline.dataset.truth import Agreement, Truth, load_samples, make_table, measure
from pipeline.report import tiles
from pipeline.report.numbers import Numbers, count, phrase_rows
from pipeline.report.page import Content, render
from pipeline.report.report_config import ReportConfig
from pipeline.report.sheet import draw_sheet
from pipeline.report.tiles import Section, draw_tiles
from pipeline.sources.storage import is_local
from sspsam.errors import ConfigError, DataError
from sspsam.storage.secrets import redact


@dataclass(frozen=True)
class ReportSummary:
    """Where the report is, and its main numbers."""

    page: Path
    sheet: Path
    numbers: Numbers
    agreement: Agreement | None
    problems: tuple[tuple[str, str], ...]  # (path, message) of files left out


def make_report(config: ReportConfig) -> ReportSummary:
    """Write the page and the sheet. Memory does not grow with the dataset (DuckDB spills).

    Raises DataError if there is no dataset, no readable file in it, or the truth does not fit it;
    ConfigError if the page or the sheet cannot be written.
    """
    dataset = open_dataset(
        config.output,
        storage_options=config.storage_options,
        image_roots=config.image_root,
        tolerant=True,
    )
    page, sheet = _targets(config, dataset)
    index = Index(dataset, memory_mb=config.memory_mb, threads=config.threads)
    rows = Rows(index, threads=config.threads)
    truth = None
    try:
        index.refresh()
        problems = index.progress().problems
        if not index.progress().images and problems:
            raise DataError(problems[0][1])
        reviews = Reviews(index)
        reviews.load()
        make_table(index)
        truth = _open_truth(index, config)
        agreement = _agreement(index, rows, truth)
        pictures = Pictures(rows, dataset, threads=config.threads)
        sections = _sections(index, rows, pictures, truth, agreement, config)
        numbers = count(index)
        content = Content(
            url=redact(dataset.url),
            model=dataset.model(),
            curation=dataset.read_json("_curation.json"),
            problems=problems,
            numbers=numbers,
            agreement=agreement,
            verdicts=reviews.counts(),
            sections=sections,
            frequent=phrase_rows(index, config.phrases),
            weak=phrase_rows(index, config.phrases // 2 or 1, order="score"),
        )
        _write(page, render(content).encode("utf-8"))
        _write(sheet, draw_sheet(redact(dataset.url), numbers, agreement, sections))
        return ReportSummary(page, sheet, numbers, agreement, problems)
    finally:
        if truth is not None:
            truth.close()
        rows.close()
        index.close()


def _targets(config: ReportConfig, dataset: AnnotationDataset) -> tuple[Path, Path]:
    beside = Path(dataset.root) if is_local(dataset.fs) else Path()
    page = Path(config.page) if config.page else beside / "report.html"
    sheet = Path(config.sheet) if config.sheet else page.with_suffix(".png")
    for flag, path in (("--page", page), ("--sheet", sheet)):
        if not path.parent.is_dir():
            raise ConfigError(f"{flag} {path}: the folder {path.parent} does not exist")
    return page, sheet


def _open_truth(index: Index, config: ReportConfig) -> Truth | None:
    limits = {"memory_mb": config.memory_mb, "threads": config.threads}
    if config.truth is not None:
        return Truth(index, config.truth, **limits)
    beside = f"{index.dataset.root}/truth"
    if index.dataset.fs.isdir(f"{beside}/annotations"):
        return Truth(index, f"{index.dataset.url.rstrip('/')}/truth", **limits)
    return None


def _agreement(index: Index, rows: Rows, truth: Truth | None) -> Agreement | None:
    if truth is not None:
        return truth.compare(rows)
    samples = f"{index.dataset.root}/samples.parquet"
    if index.dataset.fs.exists(samples):
        return load_samples(index, samples)
    agreement = measure(index)
    return agreement if agreement.compared else None


def _sections(
    index: Index,
    rows: Rows,
    pictures: Pictures,
    truth: Truth | None,
    agreement: Agreement | None,
    config: ReportConfig,
) -> list[Section]:
    limit = config.tiles
    chosen = [
        ("sample", "A random sample", "All masks of each image.", tiles.anything(index, limit, config.seed)),
        ("best", "Best by score", "One mask an image.", tiles.by_score(index, limit, "max")),
        ("worst", "Worst by score", "One mask an image.", tiles.by_score(index, limit, "min")),
    ]
    if agreement is not None:
        about = "The phrases whose mask agrees least with the true one."
        chosen.append(("worst-iou", "Worst by IoU", about, tiles.worst_by_truth(index, limit)))
    about = "Phrases for which the model found nothing: is it right?"
    chosen.append(("empty", "No target", about, tiles.empty(index, limit, config.seed)))
    return [
        Section(
            name,
            title,
            text,
            draw_tiles(choices, rows, pictures, truth if name == "worst-iou" else None, config.threads),
        )
        for name, title, text, choices in chosen
    ]


def _write(path: Path, data: bytes) -> None:
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        hidden.write_bytes(data)
        hidden.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
