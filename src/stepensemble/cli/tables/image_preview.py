"""An image as an event: its payload, and its preview in the terminal."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import typer
from rich.color import Color
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from stepensemble.cli.tables.prediction import list_rows, render_bar
from stepensemble.core.aggregation.output import Output
from stepensemble.core.arrays import Bytes
from stepensemble.core.problems import enumerate_values
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.manifest import Feature, ImageFeature
from stepensemble.core.schema.task import name_classes
from stepensemble.imaging.decoding import decode_image

FEWEST_CELLS, MAX_CELLS = 16, 32
"""Columns of the terminal that an image fills; smaller images are enlarged, larger ones are reduced."""

SHADES = " ░▒▓█"
"""From black to white, for a terminal without colours."""

SHOWN_CLASSES = 10


def find_image_feature(features: Sequence[Feature]) -> ImageFeature:
    """Return the feature of an ensemble whose only feature is an image.

    Raises:
        typer.BadParameter: the ensemble has other features.
    """
    if len(features) == 1 and isinstance(features[0], ImageFeature):
        return features[0]
    names = enumerate_values(feature.name for feature in features)
    raise typer.BadParameter(
        f"it is an image, and the ensemble's features are {names}; write a payload as JSON", param_hint="EVENT"
    )


def build_image_payload(feature: ImageFeature, body: bytes) -> dict[str, Any]:
    """Return the payload for an image."""
    return {"features": {feature.name: base64.b64encode(body).decode()}}


def render_image(body: bytes, output: Output, release: Release, *, colour: bool) -> RenderableType:
    """Render an image as the members get it, beside the probability of each class."""
    feature = find_image_feature(release.features)
    grid = Table.grid(padding=(0, 3))
    parts: list[RenderableType] = [render_pixels(_resize(body, feature), colour=colour)]
    probabilities = [one.probabilities for one in list_rows(output)]
    if len(probabilities) == 1 and isinstance(probabilities[0], list):
        parts.append(_render_classes(name_classes(release.task), probabilities[0]))
    grid.add_row(*parts)
    return grid


def render_pixels(samples: Bytes, *, colour: bool) -> Text:
    """Render pixels of shape `(height, width, channels)`: a cell of the terminal is two pixels, one above the other.

    Without colours a cell is a shade from black to white, the mean of the two.
    """
    pixels = np.broadcast_to(samples, (*samples.shape[:2], 3))
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    lines = [
        _render_colours(above, below) if colour else _render_shades(above, below)
        for above, below in zip(pixels[::2], pixels[1::2], strict=True)
    ]
    return Text("\n").join(lines)


def _render_colours(above: Bytes, below: Bytes) -> Text:
    line = Text()
    for upper, lower in zip(above.tolist(), below.tolist(), strict=True):
        line.append("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower)))
    return line


def _render_shades(above: Bytes, below: Bytes) -> Text:
    lightness = np.stack([above, below]).mean(axis=(0, 2)) / 255
    return Text("".join(SHADES[round(share * (len(SHADES) - 1))] for share in lightness.tolist()))


def _resize(body: bytes, feature: ImageFeature) -> Bytes:
    height, width = feature.size
    if width > MAX_CELLS:
        smaller = (max(round(height * MAX_CELLS / width), 1), MAX_CELLS)
        return decode_image(body, msgspec.structs.replace(feature, size=smaller))
    times = -(-FEWEST_CELLS // width)
    return decode_image(body, feature).repeat(times, axis=0).repeat(times, axis=1)


def _render_classes(classes: Sequence[str], probabilities: Sequence[float]) -> Table:
    likeliest = sorted(range(len(classes)), key=probabilities.__getitem__, reverse=True)[:SHOWN_CLASSES]
    grid = Table.grid(padding=(0, 1))
    for index in sorted(likeliest):
        style = "bold cyan" if index == likeliest[0] else ""
        grid.add_row(Text(classes[index], style=style), render_bar(probabilities[index]), f"{probabilities[index]:.3f}")
    return grid
