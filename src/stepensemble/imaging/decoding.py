"""Decodes image files to samples with Pillow.

The content of a file shows whether it is a PNG, a JPEG or a WebP; its name and media type are ignored. A file is
rejected if it has more pixels than the feature takes (before any is decoded), if it is truncated, or if it is an
animation. The image is rotated by its EXIF orientation. Transparent pixels are blended with white. The feature names
one of Pillow's filters to resize with, which averages when an image shrinks, unless the feature disables that.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stepensemble.core.arrays import Bytes
from stepensemble.core.problems import show
from stepensemble.core.schema.manifest import ImageFeature
from stepensemble.imaging.integrity import CheckUnknown, check_integrity
from stepensemble.imaging.resampling import Box, resample

FORMATS = ("PNG", "JPEG", "WEBP")

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters; all except the first average when an image shrinks. Pillow's BOX is no average by area: it uses a
pixel on an edge completely or not at all."""

GREY, RGB = 0, 2
"""A PNG's colour types that may have one transparent colour, as numbered in its header."""


class ImageRefused(Exception):
    """An image is rejected; `reason` has the problem and the remedy."""

    def __init__(self, message: str, remedy: str) -> None:
        self.reason = (message, remedy)
        super().__init__(f"{message}; {remedy}")


def decode_image(body: bytes, feature: ImageFeature) -> Bytes:
    """Decode an image to the feature's size and mode.

    Returns samples of shape `(height, width, channels)`.

    Raises:
        ImageRefused: it is not an image, is damaged, is an animation, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            _check_header(image, feature)
            check_integrity(body, image.format or "")
            image.load()
            plain = _to_eight_bits(image, body) if image.format == "PNG" else image
            ImageOps.exif_transpose(plain, in_place=True)  # a copy would need as much memory again
            fitted = _fit(_to_mode(plain, feature.mode), feature)
    except ImageRefused:
        raise
    except CheckUnknown as error:
        raise ImageRefused(str(error), "convert it to RGB and save it as PNG") from None
    except UnidentifiedImageError:
        raise ImageRefused("is not a PNG, JPEG or WebP image", "convert it to one of these") from None
    except Image.DecompressionBombError:
        raise ImageRefused(f"has more than {feature.max_pixels:,} pixels", "make it smaller") from None
    except Exception as error:  # noqa: BLE001 - Pillow may raise anything for a damaged file
        reason = f"cannot be decoded: {show(str(error).splitlines()[0] if str(error) else type(error).__name__)}"
        raise ImageRefused(reason, "send the whole file, undamaged; if it looks right, save it again as PNG") from None
    return np.asarray(fitted).reshape(*feature.size, feature.channels)


def encode_png(samples: Bytes) -> bytes:
    """Return samples of shape `(height, width, channels)` as a PNG, the same bytes every time.

    It is not compressed: how small zlib makes it depends on zlib's version.
    """
    image = Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _check_header(image: Image.Image, feature: ImageFeature) -> None:
    width, height = image.size
    if width * height > feature.max_pixels:
        raise ImageRefused(f"has {width:,} × {height:,} pixels", f"use at most {feature.max_pixels:,}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a JPEG followed by others that a camera added, such as a preview
        raise ImageRefused(f"is an animation of {frames} images", "send one of them")


def _to_eight_bits(image: Image.Image, body: bytes) -> Image.Image:
    """Return a PNG with 8 bits a sample, with its transparent colour applied.

    Pillow compares the transparent colour with samples of 8 bits even if the file has other ones, and then makes wrong
    pixels transparent, or none.
    """
    depth, colour = body[24], body[25]
    key = image.info.get("transparency")
    if colour == GREY and depth < 8 and key is not None and image.mode == "L":
        top = 2**depth - 1
        image.info["transparency"] = (key & top) * 255 // top
    if depth != 16 or colour not in (GREY, RGB) or (colour == RGB and key is None):
        return image
    samples = np.asarray(image)
    if colour == RGB:  # Pillow has read only the upper bytes
        with Image.open(io.BytesIO(body), formats=["PNG"]) as lower:
            lower.tile = [
                tile._replace(args="RGB;16L") for tile in lower.tile
            ]  # in the other byte order, which gives the lower bytes
            samples = samples.astype(np.uint16) << 8 | np.asarray(lower)
    eight = Image.fromarray((samples >> 8).astype(np.uint8))
    if key is not None:
        different = (samples != key) if colour == GREY else (samples != key).any(axis=-1)
        eight.putalpha(Image.fromarray(different.astype(np.uint8) * 255))
    eight.info = {
        name: value for name, value in image.info.items() if name != "transparency"
    }  # with the EXIF orientation
    return eight


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.has_transparency_data:
        above = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(above, mask=above.getchannel("A"))
    return image if image.mode == mode else image.convert(mode)


def _fit(image: Image.Image, feature: ImageFeature) -> Image.Image:
    height, width = feature.size
    if image.size == (width, height):
        return image
    # Cropped before resizing: resized first, a strip of one pixel's height would become too large for memory.
    box = _find_part(image, feature)
    filter_ = feature.filter or "bilinear"
    if feature.antialias is not False and filter_ in FILTERS:
        return image.resize((width, height), FILTERS[filter_], box)
    return Image.fromarray(resample(np.asarray(image), (height, width), box, filter_))


def _find_part(image: Image.Image, feature: ImageFeature) -> Box:
    """Return the part of an image to resize: all of it, or the centre with the feature's shape."""
    height, width = feature.size
    part_width, part_height = float(image.width), float(image.height)
    if feature.resize == "crop":
        part_width = min(image.width, image.height * width / height)
        part_height = min(image.height, image.width * height / width)
    left, upper = (image.width - part_width) / 2, (image.height - part_height) / 2
    return Box(left, upper, left + part_width, upper + part_height)
