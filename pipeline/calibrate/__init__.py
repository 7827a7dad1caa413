"""Learn from labels how probable it is that a mask is right, and write that into a dataset."""

from pipeline.calibrate.calibrate_run import apply, calibrate

__all__ = ["apply", "calibrate"]
