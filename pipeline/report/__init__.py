"""`sspsam report`: one HTML page and one PNG contact sheet from an annotation dataset.

config.py    what can be asked for
numbers.py   counts, quantiles, histograms, phrases and errors, by DuckDB
truth.py     IoU of each mask with its true one
tiles.py     which images are shown, and their drawing
html.py      markup that escapes by construction; charts as inline SVG
page.py      the page's sections
sheet.py     the contact sheet
"""

from pipeline.report.make import ReportSummary, make_report
from pipeline.report.report_config import ReportConfig

__all__ = ["ReportConfig", "ReportSummary", "make_report"]
