"""Before Ray starts: the stages of a run, and whether OUTPUT may be gone on with."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.annotate import manifest as manifests
from pipeline.annotate import run_summary as summaries
from pipeline.annotate.allocation import Allocation
from pipeline.annotate.annotate_config import AUTO, AnnotateConfig
from pipeline.annotate.annotator import LoadSegmenter, SegmenterFactory
from pipeline.annotate.chunk_receipt import CHUNKS
from pipeline.annotate.manifest import Manifest
from pipeline.annotate.receipts import Survey, survey
from pipeline.annotate.replica import AfterChunk
from pipeline.annotate.shard_files import ANNOTATIONS
from pipeline.annotate.shard_reader import PhraseSource, Reader
from pipeline.annotate.shard_receipt import SHARDS
from pipeline.dataset.calibration import APPLIED, Calibration
from pipeline.dataset.parts import part_of
from pipeline.dataset.store import Store
from pipeline.phrases import phrase_source as find_phrase_source
from pipeline.sources import ReadOptions, Shard, input_root, list_shards, read_chunks
from pipeline.sources.storage import filesystem
from sspsam.errors import ConfigError
from sspsam.known_models import DRAWN_SCENES, drawn_shards, model_warning
from sspsam.schema import SIGNALS, VERIFICATION_SIGNALS

#: Images of a chunk where nobody says otherwise and it is not measured.
USUAL_CHUNK = 64


@dataclass(frozen=True)
class Job:
    """The stages of a run, ready to travel to the cluster."""

    config: AnnotateConfig
    shards: Sequence[Shard]
    reader: Reader
    phrase_source: PhraseSource
    segmenter_factory: SegmenterFactory
    after_chunk: AfterChunk | None = None
    image_root: str | None = None
    calibration: Calibration | None = None

    def manifest(self, sha256: str, config: AnnotateConfig, commit: str | None = None) -> Manifest:
        """That of a run of `config` that starts now, with the model of this sha256."""
        calibration = None if self.calibration is None else self.calibration.sha256
        return Manifest.of(config, self.shards, sha256, self.image_root, commit, calibration)

    @property
    def mine(self) -> list[Shard]:
        """The shards that fall into --part."""
        part, parts = self.config.output.part_numbers()
        return [shard for shard in self.shards if part_of(shard.name, parts) == part]

    def segmenter_for(self, take: Allocation, sha256: str | None = None) -> SegmenterFactory:
        """The factory as replicas get it: with their device and threads, and the file's checksum."""
        if not isinstance(self.segmenter_factory, LoadSegmenter):
            return self.segmenter_factory
        model = self.config.model
        known = None if model.model.startswith("random:") else sha256
        device = model.device or ("cuda" if take.gpus else "cpu")
        if device.startswith("cuda") and not take.gpus:
            raise ConfigError(
                "--device cuda, but a replica gets no GPU: the cluster has none, or --gpus-per-replica is 0"
            )
        vocabulary = len(getattr(self.phrase_source, "words", ()))
        return dataclasses.replace(
            self.segmenter_factory,
            device=device,
            sha256=known,
            threads=take.threads,
            vocabulary=vocabulary,
        )


def prepare(
    config: AnnotateConfig,
    shards: Sequence[Shard] | None = None,
    reader: Reader | None = None,
    phrase_source: PhraseSource | None = None,
    segmenter_factory: SegmenterFactory | None = None,
    after_chunk: AfterChunk | None = None,
) -> Job:
    """List the input and make the stages; what cannot work is found here, before Ray starts."""
    source = config.source
    options: dict[str, Any] = {
        "image_column": source.image_column,
        "caption_column": source.caption_column,
        "storage_options": source.storage_options,
    }
    asked = config.phrases
    phrases = phrase_source or find_phrase_source(
        asked.phrases,
        asked.max_phrases,
        asked.phrase_detail,
        asked.proper_names or "generic",
        asked.language,
    )
    if reader is None:
        reader = functools.partial(
            read_chunks, options=ReadOptions(**options, columns=getattr(phrases, "columns", ()))
        )
    image_root = None
    if shards is None:
        image_root = input_root(source.input, source.storage_options)
        kind = None if source.format == "auto" else source.format
        shards = list_shards(source.input, format=kind, captions=source.captions, **options)
    if not shards:
        raise ConfigError(f"INPUT {source.input} holds no shards")
    factory = segmenter_factory or LoadSegmenter(
        config.model.model,
        config.model.device,
        max_pixels=source.max_pixels,
        decode=source.decode,
        verify=config.model.verify,
        options=config.model.model_options,
        compiled=config.compute.compile,
    )
    return Job(config, shards, reader, phrases, factory, after_chunk, image_root, _calibration(config))


def _calibration(config: AnnotateConfig) -> Calibration | None:
    """What --calibration names. Raises ConfigError if it needs a signal that the run does not compute."""
    if config.model.calibration is None:
        return None
    found = Calibration.load(config.model.calibration, config.source.storage_options)
    levels = VERIFICATION_SIGNALS
    if missing := found.missing((*SIGNALS, *levels[config.model.verify])):
        level = next((name for name, signals in levels.items() if set(missing) <= set(signals)), None)
        raise ConfigError(
            f"--calibration {found.where} needs the signal {missing[0]!r}, which this run does not compute: "
            + (f"add --verify {level}" if level else "learn it from what `sspsam annotate` alone wrote")
        )
    return found


def as_begun(config: AnnotateConfig, store: Store) -> AnnotateConfig:
    """The settings with what was not said taken from the dataset that they go on with."""
    data = None if config.output.overwrite else store.get(manifests.NAME)
    if data is None:
        return config
    begun = Manifest.from_json(data, store.path(manifests.NAME))
    if config.phrases.proper_names is None:
        names = dataclasses.replace(config.phrases, proper_names=begun.option("proper_names"))
        config = dataclasses.replace(config, phrases=names)
    return with_chunk_size(config, begun.option("chunk_size"))


def with_chunk_size(config: AnnotateConfig, chunk_size: int) -> AnnotateConfig:
    """The settings with `chunk_size` in place of auto."""
    if config.output.chunk_size != AUTO:
        return config
    return dataclasses.replace(config, output=dataclasses.replace(config.output, chunk_size=chunk_size))


def fingerprint(job: Job) -> str:
    """The model's sha256, or what stands for it when a caller brought its own Segmenter."""
    if isinstance(job.segmenter_factory, LoadSegmenter):
        from sspsam.open_models.named import fingerprint as of_model
        from sspsam.open_models.named import is_open_model

        if is_open_model(job.config.model.model) and job.config.source.decode != "exact":
            raise ConfigError(f"--decode reduced is for SSP-SAM: leave it out for {job.config.model.model}")
        return of_model(job.config.model.model, job.config.model.model_options)
    return f"factory {getattr(job.segmenter_factory, '__qualname__', type(job.segmenter_factory))}"


def _hub_commit(job: Job, sha256: str) -> str | None:
    if not isinstance(job.segmenter_factory, LoadSegmenter):
        return None
    from sspsam.open_models.named import hub_commit

    return hub_commit(job.config.model.model, sha256)


def caution(job: Job, model: Mapping[str, Any]) -> str | None:
    """`model_warning`, but for the demo model on shards of drawn scenes, which are known by their bytes."""
    warning = model_warning(model)
    return None if warning and model.get("trained_on") == DRAWN_SCENES and _is_drawn(job) else warning


def _is_drawn(job: Job) -> bool:
    known = drawn_shards()

    def drawn(shard: Shard) -> bool:
        if shard.format == "folder" or shard.size not in known.values():
            return False
        fs, path = filesystem(shard.url, job.config.source.storage_options)
        try:
            return hashlib.sha256(fs.cat_file(path)).hexdigest() in known
        except Exception:  # whatever a file system raises: the run reports it
            return False

    return all(map(drawn, job.shards))


def open_output(
    store: Store, job: Job, sha256: str, chunk_size: Callable[[Job], int] = lambda job: USUAL_CHUNK
) -> tuple[Manifest, Survey]:
    """Check that OUTPUT is ours to go on with, and write its manifest.

    Args:
        chunk_size: chooses that of a new dataset if it is to be chosen. The manifest has it.

    Raises:
        ConfigError: it holds something else, or was made with other options.
    """
    output = job.config.output
    if output.overwrite:
        ours = (f"{ANNOTATIONS}/", f"{CHUNKS}/", f"{SHARDS}/", manifests.NAME, summaries.NAME, APPLIED)
        store.delete(name for name in store.listing() if name.startswith(ours))
    data = store.get(manifests.NAME)
    if data is not None:
        begun = Manifest.from_json(data, store.path(manifests.NAME))
        config = with_chunk_size(job.config, begun.option("chunk_size"))
        now = begun.resumed_by(job.manifest(sha256, config))
    found = survey(store, [shard.name for shard in job.mine])
    if data is None and (found.begun or found.ended):
        raise ConfigError(
            f"OUTPUT {output.output} holds annotations but no {manifests.NAME} that says of what: "
            "choose another OUTPUT, or --overwrite"
        )
    if found.foreign:
        raise ConfigError(
            f"{store.path(found.foreign[0])} was not written by this program, and every reader of OUTPUT "
            f"would take it ({len(found.foreign)} such files): move it out of annotations/"
        )
    if data is None:
        config = job.config
        if config.output.chunk_size == AUTO:
            config = with_chunk_size(config, chunk_size(job))
        now = job.manifest(sha256, config, _hub_commit(job, sha256))
        if not store.create(manifests.NAME, now.to_json()):
            # Another job came at the same time: it says the chunk size, and must have the same options.
            return open_output(store, job, sha256, chunk_size)
    else:
        store.put(manifests.NAME, now.to_json())
    if job.calibration is not None:
        store.put(APPLIED, job.calibration.to_json())
    return now, found.without(store, output.retry_errors) if output.retry_errors else found
