"""Golden rows: what every member is asked at the gate, and again where it is verified."""

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
"""Enough for a model to say different things, few enough for images in a payload."""

DRAWN_PIXELS = 64
"""Greatest side of a drawn picture: a feature that wants a larger one enlarges it, and eight of them stay small."""


def golden_rows(manifest: Manifest) -> list[Mapping[str, Any]]:
    """Return the golden rows that a manifest declares, else `GOLDEN_ROWS` drawn from its features."""
    return list(manifest.golden) or [*draw_rows(manifest.features, GOLDEN_ROWS)]


def read_golden(features: Sequence[Feature], rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Encode golden rows.

    Raises:
        InvalidManifest: a picture among them cannot be decoded; everything else was found sound with the manifest.
    """
    try:
        return normalize(features, rows, locate="$.golden[{}]".format, images=read_images)
    except InvalidPayload as error:
        raise InvalidManifest(error.problems) from None


def draw_rows(features: Sequence[Feature], rows: int) -> list[dict[str, Any]]:
    """Draw rows from the features' ranges, always the same ones; `features.normalize` accepts them.

    Args:
        features: as a manifest declares them.
        rows: how many; those of a smaller number come first among those of a larger one.
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
        return generator.uniform(0, 1, feature.shape).round(3).tolist()  # an image has many
    return generator.integers(0, 100, feature.shape).tolist()


def _draw_image(feature: ImageFeature, generator: np.random.Generator) -> str:
    """Draw noise that is not the same everywhere, so that a model has something to tell apart."""
    from stepensemble.imaging.decoding import encode_png

    height, width = (min(side, DRAWN_PIXELS) for side in feature.size)
    noise = generator.integers(0, 256, (height, width, feature.channels)) * generator.uniform(0, 1, (height, 1, 1))
    return base64.b64encode(encode_png(noise.astype(np.uint8))).decode()


def _range(feature: NumberFeature) -> tuple[float, float]:
    """Where a feature's values usually are: what its scaling says, within its bounds; else near a bound."""
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
    if low > most or high < least:  # the bounds lie apart from the guess
        low, high = (least, least + 1.0) if feature.min is not None else (most - 1.0, most)
    return max(low, least), min(high, most)
