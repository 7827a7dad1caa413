"""The best validation of a stage so far, its weights, and how long nothing has been better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sspsam.errors import ConfigError
from sspsam.training.train_config import TrainConfig


@dataclass
class Best:
    """Part of a run's state, so that a resumed run chooses as an uninterrupted one does."""

    step: int = -1  # steps done when it was measured; -1: nothing was
    value: float = 0.0  # of `TrainConfig.measure`
    waited: int = 0  # validations since
    weights: dict[str, Tensor] = field(default_factory=dict)  # averaged ones; only where `keep` is "best"

    def see(
        self, step: int, measures: Mapping[str, float], averages: Mapping[str, Tensor], config: TrainConfig
    ) -> None:
        """Take in a validation.

        Raises:
            ConfigError: it does not have the measure that decides.
        """
        if config.keep == "last" and not config.patience:
            return
        name = config.measure
        if name not in measures:
            raise ConfigError(f"--best-by {name}: stage {config.stage} measures {', '.join(measures)}")
        value, sign = measures[name], -1 if name.startswith("loss") else 1
        self.waited += 1
        if self.step < 0 or sign * value > sign * self.value:
            self.step, self.value, self.waited = step, value, 0
            if config.keep == "best":
                self.weights = {name: average.detach().clone() for name, average in averages.items()}

    def ends(self, config: TrainConfig) -> bool:
        """Whether the stage has waited long enough for something better."""
        return 0 < config.patience <= self.waited
