"""Decoding: from a file's bytes to samples, by Pillow.

A file is a PNG, a JPEG or a WebP by its content; no name and no media type is asked. It is refused where it has more
pixels than the feature takes, before any of them is decoded; where it is cut off; and where it is an animation. It is
turned as its EXIF orientation says. What is transparent lies on white. A resize is by Pillow's filter of the feature's
name, which averages where a picture becomes smaller, unless the feature says otherwise.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stepensemble.core.arrays import Bytes
from stepensemble.core.problems import show
from stepensemble.core.schema.manifest import ImageFeature
from stepensemble.imaging.integrity import CheckUnknown, check_integrity
from stepensemble.imaging.resampling import resample

FORMATS = ("PNG", "JPEG", "WEBP")

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's, which average where a picture becomes smaller, but for the first. Its BOX is no average by area: of a pixel
on an edge it takes all or nothing."""

GREY, RGB = 0, 2
"""A PNG's types of colour of which one may be transparent, as its header writes them."""


class ImageRefused(Exception):
    """A picture is not taken; `reason` says what is wrong with it, and what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        self.reason = (message, remedy)
        super().__init__(f"{message}; {remedy}")


def decode_image(body: bytes, feature: ImageFeature) -> Bytes:
    """Decode a picture to the feature's size and mode.

    Returns samples of shape `(height, width, channels)`.

    Raises:
        ImageRefused: it is none, is damaged, moves, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            _check_header(image, feature)
            check_integrity(body, image.format or "")
            image.load()
            plain = _to_eight_bits(image, body) if image.format == "PNG" else image
            ImageOps.exif_transpose(plain, in_place=True)  # a second one would fill as much memory again
            fitted = _fit(_to_mode(plain, feature.mode), feature)
    except ImageRefused:
        raise
    except CheckUnknown as error:
        raise ImageRefused(str(error), "convert it to RGB and save it as PNG") from None
    except UnidentifiedImageError:
        raise ImageRefused("is no PNG, JPEG or WebP picture", "convert it to one of these") from None
    except Image.DecompressionBombError:
        raise ImageRefused(f"has more than {feature.max_pixels:,} pixels", "make it smaller") from None
    except Exception as error:  # noqa: BLE001 - of damaged files Pillow raises whatever its parsers meet
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
    if frames > 1 and image.format != "MPO":  # a JPEG behind which a camera has put others, such as a preview
        raise ImageRefused(f"is an animation of {frames} pictures", "send one of them")


def _to_eight_bits(image: Image.Image, body: bytes) -> Image.Image:
    """Return a PNG with 8 bits a sample, what its transparent colour covers being transparent.

    Pillow compares that colour with samples of 8 bits, whatever the file has, and takes other pixels for it, or none.
    """
    depth, colour = body[24], body[25]
    key = image.info.get("transparency")
    if colour == GREY and depth < 8 and key is not None and image.mode == "L":
        top = 2**depth - 1
        image.info["transparency"] = (key & top) * 255 // top
    if depth != 16 or colour not in (GREY, RGB) or (colour == RGB and key is None):
        return image
    samples = np.asarray(image)
    if colour == RGB:  # of which Pillow has kept the upper bytes
        with Image.open(io.BytesIO(body), formats=["PNG"]) as lower:
            lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # the other order: now the lower ones
            samples = samples.astype(np.uint16) << 8 | np.asarray(lower)
    eight = Image.fromarray((samples >> 8).astype(np.uint8))
    if key is not None:
        different = (samples != key) if colour == GREY else (samples != key).any(axis=-1)
        eight.putalpha(Image.fromarray(different.astype(np.uint8) * 255))
    eight.info = {name: value for name, value in image.info.items() if name != "transparency"}  # how it is turned
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
    # Cut first, then resized: the other way round, a strip of one pixel's height would grow beyond all bounds.
    box = _find_part(image, feature)
    filter_ = feature.filter or "bilinear"
    if feature.antialias is not False and filter_ in FILTERS:
        return image.resize((width, height), FILTERS[filter_], box)
    return Image.fromarray(resample(np.asarray(image), (height, width), box, filter_))


def _find_part(image: Image.Image, feature: ImageFeature) -> tuple[float, float, float, float]:
    """Return the left, upper, right and lower edge of what is resized: all, or the middle of the feature's shape."""
    height, width = feature.size
    kept = (float(image.width), float(image.height))
    if feature.resize == "crop":
        kept = (min(image.width, image.height * width / height), min(image.height, image.width * height / width))
    left, upper = (image.width - kept[0]) / 2, (image.height - kept[1]) / 2
    return left, upper, left + kept[0], upper + kept[1]
