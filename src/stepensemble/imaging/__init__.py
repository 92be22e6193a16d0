"""Pictures: from what a payload has to samples.

`read_images` is what `core.preprocessing.encoding.normalize` is handed to read them. Pillow is imported with the first
picture, so that a function whose release has none does not wait for it.
"""

from stepensemble.imaging.reading import Fetch, image_reader, read_images, sniff_image

__all__ = ["Fetch", "image_reader", "read_images", "sniff_image"]
