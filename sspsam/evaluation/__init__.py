"""Evaluation of predictions: per-sample table, metrics of the field, two protocols, intervals."""

from sspsam.evaluation.bootstrap import Score, intervals
from sspsam.evaluation.metrics import TASKS, Metric, task_metrics
from sspsam.evaluation.score_summary import PROTOCOLS, Evaluation, markdown, summarise
from sspsam.evaluation.scoring import Prediction, score_image
from sspsam.evaluation.table import SAMPLE_SCHEMA

__all__ = [
    "PROTOCOLS",
    "SAMPLE_SCHEMA",
    "TASKS",
    "Evaluation",
    "Metric",
    "Prediction",
    "Score",
    "intervals",
    "markdown",
    "score_image",
    "summarise",
    "task_metrics",
]
