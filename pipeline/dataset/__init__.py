"""The annotation dataset, as every command sees it: where it is, what a row holds, what people said of it."""

from pipeline.dataset.annotation_dataset import AnnotationDataset, open_dataset

__all__ = ["AnnotationDataset", "open_dataset"]
