"""`sspsam view`: look at an annotation dataset in the browser and give verdicts.

index.py       small columns of every row in DuckDB tables, filled in the background
query.py       filters and sorting as one frozen dataclass, and its SQL
rows.py        whole rows (caption, RLE) of one page, straight from the annotation Parquet
reviews.py     verdicts: read, newest wins; written as new files only
pictures.py    images and thumbnails, made on demand, cached within a bound
attention.py   attention maps of one phrase, if a model is loaded
security.py    token, Host and Origin checks, response headers
server.py      the routes
static/        the page: plain HTML, CSS and JavaScript modules
"""

from pipeline.view.server import make_app, serve
from pipeline.view.view_config import ViewConfig

__all__ = ["ViewConfig", "make_app", "serve"]
