"""Ground truth of other formats as annotation datasets."""
