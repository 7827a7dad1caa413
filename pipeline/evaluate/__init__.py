"""Score a model on a benchmark, on the annotate job's actor pool."""

from pipeline.evaluate.config import EvaluateConfig, ScoringConfig
from pipeline.evaluate.evaluate import evaluate

__all__ = ["EvaluateConfig", "ScoringConfig", "evaluate"]
