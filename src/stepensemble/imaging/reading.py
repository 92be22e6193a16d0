"""Reads an image feature's values in a payload.

A value is base64 text, the same as `{"b64": text}`, which TensorFlow Serving's clients write, or `{"s3": "s3://…"}`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from stepensemble.core.arrays import Array, Bytes
from stepensemble.core.preprocessing.encoding import Images, Reasons
from stepensemble.core.problems import show
from stepensemble.core.schema.manifest import ImageFeature

Fetch = Callable[[str], bytes | tuple[str, str]]
"""Returns the object at an `s3://…`, or the problem and its remedy."""

EXPECTED = "give a PNG, JPEG or WebP as base64 text"

MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def sniff_image(body: bytes) -> bool:
    """Return whether bytes begin like a PNG, a JPEG or a WebP."""
    return body.startswith(MAGIC) or (body[:4] == b"RIFF" and body[8:12] == b"WEBP")


def reject_pointer(_: str) -> tuple[str, str]:
    """Reject every pointer: the `Fetch` for callers without S3."""
    return "there is no S3 here", EXPECTED


def image_reader(fetch: Fetch) -> Images:
    """Return an image reader that follows pointers."""
    return partial(read_images, fetch=fetch)


def read_images(feature: ImageFeature, values: Sequence[Any], fetch: Fetch = reject_pointer) -> tuple[Array, Reasons]:
    """Read an image feature's values; see `core.preprocessing.encoding.Images`.

    Args:
        feature: its size and mode are those of the samples.
        values: none of them `None`.
        fetch: follows pointers.
    """
    samples = np.zeros((len(values), *feature.size, feature.channels), np.uint8)
    reasons: Reasons = {}
    for row, value in enumerate(values):
        read = _read_image(feature, value, fetch)
        if isinstance(read, tuple):
            reasons[row] = read
        else:
            samples[row] = read
    return samples, reasons


def _read_image(feature: ImageFeature, value: object, fetch: Fetch) -> Bytes | tuple[str, str]:
    from stepensemble.imaging.decoding import ImageRefused, decode_image

    body = _read_body(value, fetch)
    if isinstance(body, tuple):
        return body
    try:
        return decode_image(body, feature)
    except ImageRefused as refused:
        return refused.reason


def _read_body(value: object, fetch: Fetch) -> bytes | tuple[str, str]:
    text = value
    if isinstance(value, Mapping):
        if set(value) == {"s3"} and isinstance(value["s3"], str):
            return fetch(value["s3"])
        text = value["b64"] if set(value) == {"b64"} else value
    if not isinstance(text, str):
        return f"{show(value)} is not an image", EXPECTED
    if text.startswith("data:"):
        return f"{show(text)} is a data URL", "send only the part after its comma"
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return f"{show(text)} is not base64", EXPECTED
