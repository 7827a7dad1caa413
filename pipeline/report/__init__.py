"""`sspsam report`: one self-contained HTML page and one PNG contact sheet from an annotation dataset."""

from pipeline.report.make import ReportSummary, make_report
from pipeline.report.report_config import ReportConfig

__all__ = ["ReportConfig", "ReportSummary", "make_report"]
