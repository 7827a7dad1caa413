"""Score a model on a benchmark, on the annotate job's actor pool."""

from pipeline.evaluate.evaluate_config import EvaluateConfig, ScoringConfig
from pipeline.evaluate.evaluate_run import evaluate

__all__ = ["EvaluateConfig", "ScoringConfig", "evaluate"]
