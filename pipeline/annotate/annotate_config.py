"""The settings of an annotate run: one frozen dataclass per concern, one flag per field.

Each field's metadata holds its help text, so that the command line, the YAML file and the manifest
share one list of names. `AnnotateConfig.from_options` takes them: flags over YAML over defaults.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.sources.settings import check_settings, declared, flag, option, require
from sspsam.errors import ConfigError

#: As `chunk_size`: measured.
AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class InputConfig:
    """Which samples are read."""

    input: str = option("", "URL, glob, folder, or text file of URLs")
    format: Literal["auto", "tar", "parquet", "folder"] = option("auto", "how the input is stored")
    captions: str | None = option(None, "captions file of a folder (JSONL, CSV or COCO JSON), or none")
    image_column: str | None = option(None, "Parquet column of images or image URLs")
    caption_column: str | None = option(None, "Parquet column of captions")
    limit: int | None = option(None, "annotate at most this many images, in input order")
    sample: float = option(1.0, "annotate this fraction of the images, chosen by their keys")
    max_pixels: int | None = option(
        None, "an image of more pixels becomes an error row, not decoded (default: 178956970)"
    )
    decode: Literal["exact", "reduced"] = option(
        "exact",
        "reduced decodes large JPEGs at the scale that the model needs: faster, masks differ a little",
    )
    storage_options: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "JSON for fsspec, for input and output (endpoint_url, key, anon, ...)"},
    )

    def __post_init__(self) -> None:
        require(bool(self.input), "INPUT", "is empty: name a URL, glob, folder or list of URLs")
        check_settings(self, limit=1, max_pixels=1)
        require(0 < self.sample <= 1, "--sample", f"is {self.sample}, not in (0, 1]")
        require(isinstance(self.storage_options, dict), "--storage-options", "is not a JSON object")


@dataclass(frozen=True)
class PhraseConfig:
    """Where an image's phrases come from."""

    phrases: str = option("caption", "caption | column:NAME | whole | vocabulary:FILE | module:function")
    max_phrases: int | None = option(None, "keep at most this many phrases an image")
    phrase_detail: Literal["head", "modifiers", "full"] = option(
        "full", "of a caption's phrases: the noun, what stands before it too, or all that belongs to it"
    )
    proper_names: Literal["generic", "drop", "keep"] | None = option(
        None,
        "names of persons: say role or person, leave out, or keep, with those of places "
        "(default: as OUTPUT has it, generic in a new one)",
    )
    language: str = option("en", "languages of captions, CODE[:SPACY_PIPELINE],... as en,de:de_core_news_sm")

    def __post_init__(self) -> None:
        require(bool(self.phrases), "--phrases", "is empty")
        check_settings(self, max_phrases=1)


@dataclass(frozen=True)
class ModelConfig:
    """Which model draws the masks."""

    model: str = option(
        "tiny",
        "for photographs hf://wayneicloud/SSP-SAM (the authors'), a folder, file or URL; tiny knows drawings "
        "only; `sspsam models` lists more; or another open model: sam3:SOURCE, "
        "grounded-sam:DETECTOR+SEGMENTER, module:factory (docs/model.md)",
    )
    device: str | None = option(None, "cpu, cuda or mps; by default a replica with a GPU uses cuda, else cpu")
    model_options: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "options of another open model, such as its thresholds, as JSON"},
    )
    verify: Literal["none", "fast", "full"] = option(
        "none",
        "also write signals that check each mask by SSP-SAM's other answers: fast asks for other phrases, "
        "full looks at changed images too (docs/schema.md has the cost of each)",
    )
    calibration: str | None = option(
        None, "file of `sspsam calibrate`: also write p_correct and p_correct_75 (docs/trust.md)"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        known = self.device is None or re.fullmatch(r"cpu|mps|cuda(:\d+)?", self.device)
        require(bool(known), "--device", f"is {self.device!r}: give cpu, cuda or mps")
        require(isinstance(self.model_options, dict), "--model-options", "is not a JSON object")


@dataclass(frozen=True)
class ComputeConfig:
    """What the run may use, and when it gives up. Changes nothing in the output."""

    replicas: str | None = option(
        None, "model replicas, N or MIN:MAX; by default all that the cluster's GPUs or CPUs allow"
    )
    gpus_per_replica: float | None = option(
        None, "GPUs a replica, fractions allowed, 0 for CPU; by default 1 if the cluster has any"
    )
    cpus_per_replica: float | None = option(None, "CPU cores a replica, also its torch threads")
    memory_per_replica: float | None = option(
        None, "GiB of main memory reserved a replica, so that nodes are not overfilled"
    )
    compile: bool | None = option(
        None,
        "compile SAM's image encoder and let float32 keep ten bits of its mantissa; by default on CUDA, "
        "where it takes seconds at the start of a replica",
    )
    image_timeout: float = option(
        120.0, "seconds allowed an image; a chunk that takes longer has its process restarted"
    )
    stall_timeout: float = option(1800.0, "seconds without any progress after which the run gives up")
    start_timeout: float = option(600.0, "seconds to wait for the cluster's CPUs and GPUs")

    def __post_init__(self) -> None:
        self.replica_range()
        for name in ("gpus_per_replica", "cpus_per_replica", "memory_per_replica"):
            value = getattr(self, name)
            low_ok = value is None or value > 0 or (value == 0 and name == "gpus_per_replica")
            require(low_ok, flag(name), f"is {value}: must be positive")
        gpus = self.gpus_per_replica
        require(
            gpus is None or gpus <= 1 or float(gpus).is_integer(),
            "--gpus-per-replica",
            f"is {gpus}: above 1 it must be whole",
        )
        for name in ("image_timeout", "stall_timeout", "start_timeout"):
            require(getattr(self, name) > 0, flag(name), "must be a number of seconds above 0")

    def replica_range(self) -> tuple[int, int] | None:
        """`--replicas` as (min, max), or None when the cluster decides."""
        if self.replicas is None:
            return None
        low, _, high = str(self.replicas).partition(":")
        try:
            bounds = int(low), int(high or low)
        except ValueError:
            bounds = 0, 0
        require(
            1 <= bounds[0] <= bounds[1],
            "--replicas",
            f"is {self.replicas!r}: give N, or MIN:MAX with 1 <= MIN <= MAX",
        )
        return bounds


@dataclass(frozen=True)
class OutputConfig:
    """Where the dataset goes, and what happens to what is there."""

    output: str = option("", "folder or URL of the annotation dataset")
    chunk_size: int | Literal["auto"] = option(
        AUTO,
        "samples a chunk, the unit of retry; auto: what a replica does in some seconds, measured before the "
        "first run and kept in the manifest",
    )
    embed_images: bool = option(False, "copy the encoded images into the dataset")
    overwrite: bool = option(False, "delete the annotations at OUTPUT and start anew")
    retry_errors: str | None = option(
        None, "recompute chunks that hold error rows: of this kind, or of any if none is named"
    )
    part: str | None = option(
        None, "K/N: take only part K, from 1 to N, of the shards; N jobs at once fill one OUTPUT"
    )
    license: str | None = option(
        None, "license of the dataset for its data card, an identifier such as cc-by-4.0"
    )
    dry_run: bool = option(False, "list the input, time one chunk, write nothing")

    def __post_init__(self) -> None:
        require(bool(self.output), "OUTPUT", "is empty: name a folder or URL")
        require(
            self.chunk_size == AUTO or 1 <= int(self.chunk_size) <= 100_000,
            "--chunk-size",
            f"is {self.chunk_size}: 1 to 100,000, or auto",
        )
        require(
            not (self.overwrite and self.retry_errors),
            "--retry-errors",
            "keeps what is there, --overwrite deletes it: give one of them",
        )
        self.part_numbers()
        require(
            not (self.overwrite and self.part),
            "--overwrite",
            "would delete what the jobs of other parts wrote: give it without --part, or another OUTPUT",
        )

    def part_numbers(self) -> tuple[int, int]:
        """`--part` as (K, N); (1, 1) for all."""
        found = re.fullmatch(r"(\d+)/(\d+)", self.part or "1/1")
        part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
        require(1 <= part <= parts, "--part", f"is {self.part!r}: give K/N with 1 <= K <= N")
        return part, parts


@dataclass(frozen=True)
class AnnotateConfig:
    """Everything `annotate` needs to know."""

    source: InputConfig
    output: OutputConfig
    phrases: PhraseConfig = field(default_factory=PhraseConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        same = self.source.input.rstrip("/") == self.output.output.rstrip("/")
        require(not same, "OUTPUT", "is INPUT, and would be read as input next time: name another folder")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> AnnotateConfig:
        """Build from a flat mapping of option names (`chunk_size` or `chunk-size`) to values.

        Raises:
            ConfigError: an option does not exist, or its value cannot work.
        """
        values = {name.replace("-", "_"): value for name, value in options.items()}
        unknown = sorted(set(values) - set(option_fields()))
        if unknown:
            near = difflib.get_close_matches(unknown[0], option_fields(), 1)
            mend = f"; did you mean {near[0]}?" if near else "; `sspsam annotate --help` lists them"
            raise ConfigError(f"no such option: {', '.join(unknown)}{mend}")

        def part(section: type) -> Any:
            names = {f.name for f in dataclasses.fields(section)}
            return section(**{n: _coerce(n, v) for n, v in values.items() if n in names})

        return cls(*(part(section) for section in SECTIONS))

    def dataset_options(self) -> dict[str, Any]:
        """The options that decide what rows hold: a resume must have the same ones."""
        return {
            "phrases": self.phrases.phrases,
            "max_phrases": self.phrases.max_phrases,
            "phrase_detail": self.phrases.phrase_detail,
            "proper_names": self.phrases.proper_names or "generic",
            "language": self.phrases.language,
            "chunk_size": self.output.chunk_size,
            "embed_images": self.output.embed_images,
            "limit": self.source.limit,
            "sample": self.source.sample,
            "max_pixels": self.source.max_pixels,
            "decode": self.source.decode,
            "verify": self.model.verify,
            "format": self.source.format,
            "captions": self.source.captions,
            "image_column": self.source.image_column,
            "caption_column": self.source.caption_column,
            # None, as in manifests that are older than the option.
            "model_options": self.model.model_options or None,
        }

    def all_options(self) -> dict[str, Any]:
        """Every option by its name; storage secrets are left out."""
        found = {}
        for part in (self.source, self.phrases, self.model, self.compute, self.output):
            found.update(dataclasses.asdict(part))
        found["storage_options"] = sorted(found["storage_options"])
        return found


SECTIONS = (InputConfig, OutputConfig, PhraseConfig, ModelConfig, ComputeConfig)


def option_fields() -> dict[str, dataclasses.Field[Any]]:
    """Every option's dataclass field by its name, in the order of the help page."""
    return {f.name: f for section in SECTIONS for f in dataclasses.fields(section)}


def _coerce(name: str, value: Any) -> Any:
    """`value` as its field declares it, and what two of the options allow besides."""
    if name == "chunk_size" and value == AUTO:
        return value
    if name == "retry_errors" and isinstance(value, bool):
        return "any" if value else None
    return declared(option_fields()[name], value)
