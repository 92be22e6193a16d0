"""Golden rows: the rows that every member predicts at the gate, and again in a verification."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepensemble.core.errors import InvalidManifest, InvalidPayload
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    ImageFeature,
    Log1p,
    Manifest,
    MinMax,
    NumberFeature,
    Standard,
)
from stepensemble.imaging import read_images

GOLDEN_ROWS = 8
"""Enough rows for a model's outputs to differ, and few enough for images in a payload."""

DRAWN_PIXELS = 64
"""Greatest side of a drawn image, which keeps eight images small; a feature with a larger size enlarges it."""


def golden_rows(manifest: Manifest) -> list[Mapping[str, Any]]:
    """Return the golden rows that a manifest declares, else `GOLDEN_ROWS` drawn from its features."""
    return list(manifest.golden) or [*draw_rows(manifest.features, GOLDEN_ROWS)]


def read_golden(features: Sequence[Feature], rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Encode golden rows.

    Raises:
        InvalidManifest: an image among them cannot be decoded; everything else was validated with the manifest.
    """
    try:
        return normalize(features, rows, locate="$.golden[{}]".format, images=read_images)
    except InvalidPayload as error:
        raise InvalidManifest(error.problems) from None


def draw_rows(features: Sequence[Feature], rows: int) -> list[dict[str, Any]]:
    """Draw rows from the features' ranges, always the same ones; `preprocessing.encoding.normalize` accepts them.

    Args:
        features: as a manifest declares them.
        rows: how many; a larger number starts with the rows of a smaller one.
    """
    generator = np.random.default_rng(0)
    return [{feature.name: _draw(feature, generator) for feature in features} for _ in range(rows)]


def _draw(feature: Feature, generator: np.random.Generator) -> Any:
    if isinstance(feature, NumberFeature):
        low, high = _range(feature)
        # Not uniform(low, high): the difference of two numbers may be more than a float can hold.
        share = generator.uniform()
        return min(max(float(low * (1 - share) + high * share), low), high)
    if isinstance(feature, CategoryFeature):
        return feature.vocabulary[int(generator.integers(len(feature.vocabulary)))]
    if isinstance(feature, BooleanFeature):
        return bool(generator.integers(2))
    if isinstance(feature, ImageFeature):
        return _draw_image(feature, generator)
    if feature.dtype in ("float32", "float64"):
        return generator.uniform(0, 1, feature.shape).round(3).tolist()  # a large tensor stays short as text
    return generator.integers(0, 100, feature.shape).tolist()


def _draw_image(feature: ImageFeature, generator: np.random.Generator) -> str:
    """Draw noise with a different brightness in each row of pixels, so that a model's outputs can differ."""
    from stepensemble.imaging.decoding import encode_png

    height, width = (min(side, DRAWN_PIXELS) for side in feature.size)
    noise = generator.integers(0, 256, (height, width, feature.channels)) * generator.uniform(0, 1, (height, 1, 1))
    return base64.b64encode(encode_png(noise.astype(np.uint8))).decode()


def _range(feature: NumberFeature) -> tuple[float, float]:
    """Return a feature's usual range: the range of its scaling, within its bounds; else a range near a bound."""
    match feature.scaling:
        case Standard(mean=mean, std=std):
            low, high = mean - std, mean + std
        case MinMax(min=low, max=high):
            pass
        case Log1p():
            low, high = 0.0, 10.0
        case _:
            low, high = -1.0, 1.0
    least = -np.inf if feature.min is None else feature.min
    most = np.inf if feature.max is None else feature.max
    if feature.scaling is None and feature.min is not None and feature.max is not None:
        return least, most
    if low > most or high < least:  # the bounds do not overlap with the scaling's range
        low, high = (least, least + 1.0) if feature.min is not None else (most - 1.0, most)
    return max(low, least), min(high, most)
