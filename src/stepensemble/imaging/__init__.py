"""Reads the images of a payload as samples.

`core.preprocessing.encoding.normalize` takes `read_images` as an argument. Pillow is imported with the first image, so
that a function whose release has no image feature does not wait for it.
"""

from stepensemble.imaging.reading import Fetch, image_reader, read_images, sniff_image

__all__ = ["Fetch", "image_reader", "read_images", "sniff_image"]
