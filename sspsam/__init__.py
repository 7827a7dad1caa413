"""SSP-SAM: language for Segment Anything."""
