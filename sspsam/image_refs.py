"""`load_image` under the name of version 0.1; it stands in `sspsam.images.load_image`."""

from sspsam.images.load_image import load_image

__all__ = ["load_image"]
