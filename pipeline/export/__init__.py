"""An annotation dataset in the formats of other tools. `export(dataset, target, config)`.

One module a format; each reads the same stream of images (`records`) and writes as it goes.
"""

from pipeline.export.export_config import FORMATS, ExportConfig
from pipeline.export.export_run import export

__all__ = ["FORMATS", "ExportConfig", "export"]
