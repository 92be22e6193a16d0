"""Resampling that Pillow does not have: without antialiasing, and the average by area.

Each output pixel is a weighted mean of input pixels, along the height and then along the width. Sums are in float64,
and rounded once. A kernel's weights are taken at the distances of the pixels' centres, without pixels outside the
image, and divided by their sum. `tf.image.resize` computes them in the same way without antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]
Kernel = Callable[[Weights], Weights]

LANCZOS_LOBES = 3


class Box(NamedTuple):
    """The edges of a rectangle, in pixels from the upper left corner."""

    left: float
    upper: float
    right: float
    lower: float


def triangle(distance: Weights) -> Weights:
    """Return the weights of bilinear interpolation."""
    weights: Weights = np.maximum(1 - np.abs(distance), 0)
    return weights


def cubic(distance: Weights) -> Weights:
    """Return the weights of bicubic interpolation, with a = -0.5 (Keys, 1981)."""
    x = np.abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def lanczos(distance: Weights) -> Weights:
    """Return the weights of a sinc with three lobes."""
    inside = np.abs(distance) < LANCZOS_LOBES
    return np.where(inside, np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES), 0)


KERNELS: dict[str, tuple[Kernel, int]] = {
    "bilinear": (triangle, 1),
    "bicubic": (cubic, 2),
    "lanczos": (lanczos, LANCZOS_LOBES),
}
"""Kernels, each with the distance beyond which it is zero."""


def resample(samples: npt.NDArray[np.uint8], size: tuple[int, int], box: Box, filter_: str) -> npt.NDArray[np.uint8]:
    """Resize an image.

    Args:
        samples: of shape `(height, width)` or `(height, width, channels)`.
        size: height and width of the result.
        box: the part to resize, in pixels.
        filter_: "area", for the mean of the input that an output pixel covers, or a name in `KERNELS`.

    Returns samples of that size.
    """
    left, upper, right, lower = box
    rows = _resample_rows(samples, size[0], (upper, lower), filter_)
    columns = _resample_rows(rows.swapaxes(0, 1), size[1], (left, right), filter_)
    return np.rint(columns.swapaxes(0, 1)).clip(0, 255).astype(np.uint8)


def _resample_rows(samples: npt.NDArray[Any], size: int, span: tuple[float, float], filter_: str) -> Weights:
    """Resize along the first axis, a row at a time, so that no large image is held in float64."""
    resized = np.empty((size, *samples.shape[1:]))
    for row, (first, weights) in enumerate(_list_weights(len(samples), size, span, filter_)):
        resized[row] = np.tensordot(weights, samples[first : first + len(weights)], axes=1)
    return resized


def _list_weights(length: int, size: int, span: tuple[float, float], filter_: str) -> Iterator[tuple[int, Weights]]:
    """Yield, for each output, the index of the first input, and the weights from that input on."""
    start, step = span[0], (span[1] - span[0]) / size
    for index in range(size):
        if filter_ == "area":
            low, high = start + index * step, start + (index + 1) * step
            first, end = math.floor(low), math.ceil(high)
            edges = np.arange(first, end + 1, dtype=np.float64).clip(low, high)
            weights = np.diff(edges)
        else:
            kernel, radius = KERNELS[filter_]
            centre = start + (index + 0.5) * step - 0.5
            first, end = math.floor(centre - radius) + 1, math.floor(centre + radius) + 1
            weights = kernel(np.arange(first, end, dtype=np.float64) - centre)
        weights = weights[max(-first, 0) : max(length - first, 0)]
        yield max(first, 0), weights / weights.sum()
