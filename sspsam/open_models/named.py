"""Open models by what `--model` says: `sam3:SOURCE`, `grounded-sam:DETECTOR+SEGMENTER`, `module:factory`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sspsam import checkpoint
from sspsam.errors import ChecksumError, ConfigError
from sspsam.inference.results import SegmenterConfig
from sspsam.open_models.open_segmenter import OpenSegmenter
from sspsam.open_models.protocol import ModelFactory, PhraseSegmenter
from sspsam.open_models.weights import local_folder
from sspsam.storage.hub import HubModel, commit_of
from sspsam.storage.local_paths import located

#: Prefix of --model -> (factory, what follows the prefix).
BUILT_IN: Final = {
    "sam3": ("sspsam.open_models.sam3:Sam3", ("SOURCE",)),
    "grounded-sam": ("sspsam.open_models.grounded_sam:GroundedSam", ("DETECTOR", "SEGMENTER")),
}
_IMPORTABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_open_model(name: str) -> bool:
    """Whether a value of `--model` means another model than SSP-SAM."""
    if name.partition(":")[0] in BUILT_IN:
        return True
    return bool(_IMPORTABLE.fullmatch(name)) and not name.startswith(checkpoint.RANDOM_PREFIX)


def fingerprint(name: str, options: Mapping[str, Any] | None = None) -> str:
    """What tells two models apart in a run manifest, SSP-SAM or another, without building one.

    Raises: as `NamedModel.digest` and `sspsam.checkpoint.fingerprint`; ConfigError for options of SSP-SAM.
    """
    if is_open_model(name):
        return named_model(name, options).digest()
    if options:
        raise ConfigError(f"--model-options is for other models than SSP-SAM; --model {name} has none")
    return checkpoint.fingerprint(name)


def hub_commit(name: str, sha256: str) -> str | None:
    """The commit of the hub from which the weights came, for a manifest; those of several joined by "+".

    None for weights from elsewhere. sha256: what `fingerprint` gave.
    """
    if is_open_model(name):
        folders = [local_folder(one) for one in named_model(name).sources]
        commits = [commit_of(folder) for folder in folders]
        return "+".join(one or "-" for one in commits) if any(commits) else None
    on_hub = HubModel.parse(name) is not None
    return commit_of(checkpoint.resolve(name, sha256=sha256).weights) if on_hub else None


@dataclass(frozen=True)
class NamedModel:
    """An open model that is not loaded: its factory and what it is called with.

    Args:
        name: as `--model` says it.
        factory: makes the model.
        sources: folders, or repositories of the Hugging Face hub, of the built-in ones.
        options: of `--model-options`.
    """

    name: str
    factory: ModelFactory
    sources: tuple[str, ...]
    options: Mapping[str, Any]

    def digest(self) -> str:
        """Tells two models apart in a run manifest, without building one: a sha256 as hex digest.

        Raises: as the factory's `digest`; UnknownModelError for a source that is not there.
        """
        own = getattr(self.factory, "digest", None)
        if own is not None:
            return str(own(*self.sources, **self.options))
        # Without a digest of its own, a model is what its code is.
        file = inspect.getsourcefile(inspect.unwrap(self.factory))
        return hashlib.sha256(Path(file).read_bytes() if file else self.name.encode()).hexdigest()

    def load(
        self, device: str | None = None, config: SegmenterConfig | None = None, sha256: str | None = None
    ) -> PhraseSegmenter:
        """The model, ready to segment.

        Args:
            device: torch's name; None takes the best there is.
            config: threads and limits around the model.
            sha256: what `digest()` must be.

        Raises:
            ChecksumError: it is another model here than where the run was started.
        """
        if sha256 is not None and (found := self.digest()) != sha256:
            raise ChecksumError(
                f"--model {self.name}: sha256 is {found[:12]}, but {sha256[:12]} was requested"
            )
        made: Any = self.factory(*self.sources, device=device, **self.options)
        # A factory may bring its own batching, as `sspsam.Segmenter` does.
        segmenter: PhraseSegmenter = made if hasattr(made, "segment_images") else OpenSegmenter(made, config)
        return segmenter


def named_model(name: str, options: Mapping[str, Any] | None = None, home: str = "") -> NamedModel:
    """The open model that a value of `--model` means. Nothing is loaded or fetched.

    Args:
        name: one for which `is_open_model` is true.
        options: of `--model-options`.
        home: the folder that relative folders in `name` are of; this process's own if left out.

    Raises:
        ConfigError: naming the flag: no such factory, or options that it does not take.
    """
    prefix, _, rest = name.partition(":")
    path, parts = BUILT_IN.get(prefix, (name, ()))
    sources: tuple[str, ...] = tuple(rest.split("+")) if parts else ()
    if parts and (len(sources) != len(parts) or not all(sources)):
        raise ConfigError(
            f"--model {name}: give {prefix}:{'+'.join(parts)}, each a folder or org/repo[@revision] of the"
            " Hugging Face hub"
        )
    factory = _imported(path, name)
    options = dict(options or {})
    try:
        inspect.signature(factory).bind(*sources, device=None, **options)
    except TypeError as error:
        raise ConfigError(f"--model-options {json.dumps(options)} for --model {name}: {error}") from error
    _check_limits(name, getattr(factory, "LIMITS", {}), options)
    return NamedModel(name, factory, tuple(located(one, home) for one in sources), options)


def _check_limits(name: str, limits: Mapping[str, tuple[float, float]], options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless each option with a (least, most) is a number within them."""
    for option, (least, most) in limits.items():
        value = options.get(option, least)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most:
            raise ConfigError(
                f'--model-options "{option}" of {name} is {value!r}: give a number from {least:g} to {most:g}'
            )


def _imported(path: str, name: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"--model {name}: neither a model of ours nor a factory that can be imported ({error}); a module"
            " of yours must be on PYTHONPATH, on every node"
        ) from error
    if not callable(found):
        raise ConfigError(f"--model {name} is a {type(found).__name__}: name a class or a function")
    return found
