"""`load_image` under the name of version 0.1; it stands in `sspsam.images.image_refs`."""

from sspsam.images.image_refs import load_image

__all__ = ["load_image"]
