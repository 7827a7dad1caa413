"""Image/caption shards of any store, as chunks of samples. `docs/input.md` is the user's page."""

from pipeline.sources.listing import input_root, list_shards
from pipeline.sources.read_chunks import read_chunks
from pipeline.sources.samples import FORMATS, Chunk, ReadOptions, Sample, Shard

__all__ = ["FORMATS", "Chunk", "ReadOptions", "Sample", "Shard", "input_root", "list_shards", "read_chunks"]
