"""The annotation dataset, for every command: files, schema, index, reviews, destination."""

from pipeline.dataset.annotation_dataset import AnnotationDataset, open_dataset

__all__ = ["AnnotationDataset", "open_dataset"]
