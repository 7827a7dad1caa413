"""The settings of an evaluation: what is read and how it is scored, over those of the annotate job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from pipeline.annotate.annotate_config import (
    AnnotateConfig,
    ComputeConfig,
    InputConfig,
    ModelConfig,
    OutputConfig,
    PhraseConfig,
)
from sspsam.data import DataConfig
from sspsam.errors import ConfigError
from sspsam.evaluation import PROTOCOLS, TASKS

#: The metrics that a format's own papers report; of other formats the records decide.
FORMAT_TASKS: Final = {"refer": "res", "grefcoco": "gres", "phrasecut": "phrasecut"}


@dataclass(frozen=True)
class ScoringConfig:
    """How predictions are scored.

    Args:
        protocol: standard, authors or both
        task: metrics: res, gres or phrasecut; by default those of the format
        resamples: bootstrap resamples over images; 0 for no intervals
        seed: random seed of the bootstrap
    """

    protocol: str = "standard"
    task: str | None = None
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.protocol not in (*PROTOCOLS, "both"):
            raise ConfigError(f"--protocol {self.protocol}: choose {', '.join(PROTOCOLS)} or both")
        if self.task is not None and self.task not in TASKS:
            raise ConfigError(f"--task {self.task}: choose {', '.join(TASKS)}")
        if self.resamples < 0:
            raise ConfigError(f"--resamples must not be negative, not {self.resamples}")

    @property
    def protocols(self) -> tuple[str, ...]:
        return PROTOCOLS if self.protocol == "both" else (self.protocol,)

    @property
    def authors(self) -> bool:
        return "authors" in self.protocols


@dataclass(frozen=True)
class EvaluateConfig:
    """The settings of `evaluate`."""

    data: DataConfig
    output: OutputConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)

    def annotate_config(self) -> AnnotateConfig:
        """The annotate job that makes the predictions.

        What its rows depend on stands in `phrases`, so that a resume with another split or protocol
        is refused.
        """
        data, scoring = self.data, self.scoring
        what = f"records:{data.format}:{data.split}:{scoring.protocol}"
        options = dict(data.storage_options)
        return AnnotateConfig(
            source=InputConfig(input=data.dataset, storage_options=options),
            output=replace(self.output, embed_images=False),
            phrases=PhraseConfig(phrases=what),
            model=self.model,
            compute=self.compute,
        )
