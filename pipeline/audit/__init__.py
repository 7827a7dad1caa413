"""Audit a dataset: draw phrases to be looked at, and say from the verdicts how right all of them are."""

from pipeline.audit.audit_run import begin, summarise_audits

__all__ = ["begin", "summarise_audits"]
