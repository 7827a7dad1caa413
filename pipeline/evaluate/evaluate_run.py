"""Evaluate a model on a benchmark: the annotate job over its records, scored in the replicas."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.annotate.annotator import LoadSegmenter
from pipeline.annotate.job import annotate
from pipeline.annotate.run_summary import RunSummary
from pipeline.annotate.shard_receipt import ShardReceipt, receipt_name
from pipeline.dataset.store import Store
from pipeline.evaluate.evaluate_config import FORMAT_TASKS, EvaluateConfig
from pipeline.evaluate.record_shards import INDEX, IndexReader, record_phrases, write_index
from pipeline.evaluate.scorer import SAMPLES, TRUTH, Scorer
from pipeline.sources import Shard
from sspsam.checkpoint import load_config
from sspsam.data import Record, read_records
from sspsam.errors import ConfigError, DataError
from sspsam.evaluation import Evaluation, markdown, summarise
from sspsam.model_config import SSPSAMConfig
from sspsam.open_models.named import is_open_model

SAMPLES_FILE = "samples.parquet"
METRICS_JSON = "metrics.json"
METRICS_MARKDOWN = "metrics.md"
_OURS = (f"{SAMPLES}/", f"{TRUTH}/", f"{INDEX}/", SAMPLES_FILE, METRICS_JSON, METRICS_MARKDOWN)


def evaluate(
    config: EvaluateConfig, say: Callable[[str], None] = print
) -> tuple[Evaluation | None, RunSummary]:
    """Predict, score, aggregate; resumes an earlier run of the same command.

    Writes under OUTPUT: `annotations/` (predictions), `truth/` (the same phrases with true masks),
    `samples.parquet` (a row a sample), `metrics.json` and `metrics.md`.

    Returns:
        The evaluation, and the summary of the annotate job. The evaluation is None if the job did
        not account for every image: numbers over a part of a benchmark would mislead.

    Raises:
        ConfigError: the options cannot work, or are not those of what OUTPUT holds.
        DataError: the benchmark is incomplete or damaged; OUTPUT cannot be written.
        CheckpointError: the model cannot be used.
    """
    store = Store(config.output.output, dict(config.data.storage_options))
    other = is_open_model(config.model.model)
    if other and config.scoring.authors:
        raise ConfigError(
            f"--protocol {config.scoring.protocol} needs the squares of SSP-SAM: take --protocol standard"
            f" for {config.model.model}"
        )
    # Of the authors' protocol alone.
    model_config = SSPSAMConfig.preset("tiny") if other else load_config(config.model.model)
    records = list(read_records(config.data))
    say(f"{len(records):,} records of {config.data.dataset}, split {config.data.split}")
    if config.output.overwrite:
        store.delete(name for name in store.listing() if name.startswith(_OURS))
    shards = write_index(store, records, config.data.split)
    scoring = config.scoring
    run = annotate(
        config.annotate_config(),
        shards=shards,
        reader=IndexReader(store, config.data.as_stored, dict(config.data.storage_options)),
        phrase_source=record_phrases,
        segmenter_factory=LoadSegmenter(
            config.model.model,
            config.model.device,
            square_masks=scoring.authors,
            options=config.model.model_options,
            compiled=False,  # metrics are compared with other people's: nothing is rounded more than it must
        ),
        after_chunk=Scorer(store, model_config, scoring.authors),
        say=say,
    )
    if run.exit_code:
        return None, run
    table = gather(store, shards)
    evaluation = summarise(
        table,
        scoring.task or _task(config.data.format, records),
        scoring.protocols,
        resamples=scoring.resamples,
        seed=scoring.seed,
        about={
            "model": config.model.model,
            "dataset": config.data.dataset,
            "format": config.data.format,
            "split": config.data.split,
            "limit": config.data.limit,
        },
    )
    store.put_table(SAMPLES_FILE, table)
    store.put(METRICS_JSON, json.dumps(evaluation.to_json(), indent=1).encode())
    store.put(METRICS_MARKDOWN, markdown(evaluation).encode())
    return evaluation, run


def gather(store: Store, shards: Sequence[Shard]) -> pa.Table:
    """The per-sample tables of all chunks of all shards, in order.

    Raises:
        DataError: a chunk was predicted and its scores are not there.
    """
    tables = []
    for shard in shards:
        name = receipt_name(shard.name)
        receipt = ShardReceipt.from_json(store.get(name) or b"", store.path(name))
        for chunk in range(receipt.chunks):
            path = f"{SAMPLES}/{shard.name}/{chunk:05d}.parquet"
            data = store.get(path)
            if data is None:
                raise DataError(
                    f"{store.url}/{path} is missing although its predictions are there: evaluate "
                    "again with --overwrite"
                )
            tables.append(pq.read_table(io.BytesIO(data)))
    return pa.concat_tables(tables)


def _task(form: str, records: Sequence[Record]) -> str:
    """The metrics of the format, or else "gres" if some phrase has no target."""
    some_without = any(not record.has_target for record in records)
    return FORMAT_TASKS.get(form, "gres" if some_without else "res")
