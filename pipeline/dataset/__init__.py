"""The annotation dataset, for every command: files, schema, index, reviews, destination."""

from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.opening import open_dataset

__all__ = ["AnnotationDataset", "open_dataset"]
