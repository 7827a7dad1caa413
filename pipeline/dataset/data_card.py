"""What OUTPUT says of itself: `README.md` for people and the Hugging Face hub, `croissant.json` for machines.

Both come from the manifest and the counts when a run ends. Each holds its own digest, by which an edited
one is known: that is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.dataset.calibration import PROBABILITIES
from pipeline.dataset.croissant import metadata
from pipeline.dataset.dataset_schema import DESCRIBED
from pipeline.dataset.numerals import number
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.store import Store
from sspsam.images.image_places import mapping
from sspsam.known_models import caveat
from sspsam.schema import VERIFICATION_SIGNALS, annotation_schema
from sspsam.storage.secrets import redact

README, CROISSANT = "README.md", "croissant.json"
TAGS = ("referring-expression-segmentation", "open-vocabulary", "coco-rle", "ssp-sam")
FILES = "annotations/**/*.parquet"

_COUNTED = ("samples", "ok", "no_phrase", "error", "phrases", "masks", "shards", "ended")
#: Of the manifests of commands that make a dataset from another: what its rows depend on.
_MADE_FROM = ("source", "first", "second", "format", "images_at", "config")
_BLANK = "0" * 64
_MARK = re.compile("sspsam-card-sha256=([0-9a-f]{64})")
#: What the hub's size categories are named by, from 10^3 on.
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def write_card(store: Store, run: Mapping[str, Any], counts: Mapping[str, Any], command: str) -> None:
    """Write both files, except one that was edited or that is not ours.

    Args:
        run: `_run.json`.  counts: `_stats.json`.  command: how the dataset was made.

    Raises:
        DataError: the store refuses.
    """
    _write(store, facts(run, counts, command))


def write_made_card(store: Store, command: Sequence[str], made: Mapping[str, Any]) -> None:
    """`write_card` for what was made from annotations or from ground truth: counts from its files.

    Args:
        command: the words that made it.  made: the manifest of that command.
    """
    dataset = open_dataset(store.url, storage_options=store.storage_options)
    with dataset.connect() as connection:
        found = connection.execute(
            "SELECT status, error.kind, count(*), sum(phrase_count)::BIGINT, sum(mask_count)::BIGINT"
            " FROM images GROUP BY ALL"
        ).fetchall()
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for status, kind, images, phrases, masks in found:
        counts.update({status: images, "samples": images, "phrases": phrases, "masks": masks})
        kinds.update({kind: images} if kind else {})
    run = dataset.run()
    listed = run.get("runs")
    starts = map(mapping, listed if isinstance(listed, list) else [])
    runs = [{**one, "options": mapping(one.get("options"))} for one in starts] or [{}]
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    last = {"started": now, "versions": mapping(runs[-1].get("versions"))}
    options = mapping(run.get("options")) | {name: made[name] for name in _MADE_FROM if made.get(name)}
    said = facts(
        {"model": mapping(run.get("model")), "runs": [*runs, last], "options": options},
        {**{name: counts[name] for name in _COUNTED}, "kinds": kinds, "output": store.url},
        shlex.join(map(str, command)),
    )
    _write(store, said | {"schema": dataset.schema, "kept": "the manifest of this command holds more"})
    store.tidy()


def _write(store: Store, said: Mapping[str, Any]) -> None:
    for name, text in ((README, _readme(said)), (CROISSANT, metadata(said))):
        found = store.get(name)
        if found is None or _is_ours(found.decode(errors="replace")):
            store.put(name, text.replace(_BLANK, _digest(text)).encode())


def facts(run: Mapping[str, Any], counts: Mapping[str, Any], command: str) -> dict[str, Any]:
    """What both files say, without secrets."""
    last = run["runs"][-1]
    licenses = [earlier.get("options", {}).get("license") for earlier in run["runs"]]
    model = {name: redact(str(value)) for name, value in run["model"].items()}
    table = {name.replace("_", " "): counts[name] for name in ("samples", "ok", "no_phrase", "error")}
    table |= {f"error: {kind}": count for kind, count in sorted(counts["kinds"].items())}
    table |= {name: counts[name] for name in ("phrases", "masks")}
    table["no target"] = counts["phrases"] - counts["masks"]
    options = run["options"]
    added = VERIFICATION_SIGNALS[options.get("verify", "none")]
    added += PROBABILITIES if options.get("calibration") else ()
    return {
        "name": PurePosixPath(counts["output"]).name or "annotations",
        "license": next(filter(None, reversed(licenses)), None),
        "tags": TAGS,
        "schema": annotation_schema(added),
        "kept": "`_run.json` holds more, `_stats.json` the counts",
        "files": FILES,
        "model": model,
        "caveat": caveat(model),
        "counts": counts,
        "table": table,
        "started": last["started"],
        "versions": ", ".join(f"{what} {which}" for what, which in last["versions"].items()),
        "command": redact(command),
        "options": [redact(json.dumps({name: value})) for name, value in sorted(options.items())],
        "mark": f"sspsam-card-sha256={_BLANK}",
    }


def size_category(samples: int) -> str:
    """The hub's name for a number of rows."""
    place = len(str(samples)) - 3
    if place < 1:
        return f"n<{_SIZES[0]}"
    return f"{_SIZES[place - 1]}<n<{_SIZES[place]}" if place < len(_SIZES) else f"n>{_SIZES[-1]}"


def _readme(said: Mapping[str, Any]) -> str:
    front = {
        **({"license": said["license"]} if said["license"] else {}),
        "pretty_name": said["name"],
        "task_categories": ["image-segmentation"],
        "size_categories": [size_category(said["counts"]["samples"])],
        "tags": list(said["tags"]),
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": said["files"]}]}],
    }
    environment = Environment(  # of Markdown: nothing is escaped
        loader=PackageLoader("pipeline.dataset"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    return environment.get_template("README.md.jinja").render(
        said,
        front_matter=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        fields=list(_described(said["schema"])),
    )


def _described(fields: pa.Schema | pa.StructType, above: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, type, description) of each field, those of structs behind it."""
    for field in fields:
        path, kind = f"{above}{field.name}", field.type
        held = kind.value_type if hasattr(kind, "value_type") else kind
        struct = pa.types.is_struct(held) and path != "image"  # which `datasets` knows as one thing
        shown = ("list of structs" if held is not kind else "struct") if struct else str(kind)
        yield path, shown, DESCRIBED[path]
        if struct:
            yield from _described(held, f"{path}.")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_ours(text: str) -> bool:
    """Whether `text` is as this module wrote it, to the letter."""
    mark = _MARK.search(text)
    return mark is not None and _digest(text.replace(mark[1], _BLANK)) == mark[1]
