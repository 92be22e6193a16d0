"""Finds features that are sent as float32 although the manifest does not declare that seven digits are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from stepensemble.core.schema.manifest import Feature, NumberFeature, TensorFeature


def is_narrow(feature: Feature) -> bool:
    """Return whether a feature's column is float32 and so may lose digits.

    Categories and booleans become small whole numbers, and images have 256 values in each channel, so they lose
    nothing. A number feature with `"dtype": "float32"` declares that seven digits are enough.
    """
    if isinstance(feature, NumberFeature):
        return feature.dtype is UNSET
    return isinstance(feature, TensorFeature) and feature.dtype == "float32"


def list_narrow_inputs(inputs: Mapping[str, Sequence[str]], features: Sequence[Feature]) -> dict[str, str]:
    """Return the inputs that take a narrow feature, each with the first such feature; one name keeps states small.

    Args:
        inputs: input name to its columns.
        features: of the release.
    """
    narrow = {one.name for one in features if is_narrow(one)}
    first = {name: next((column for column in columns if column in narrow), None) for name, columns in inputs.items()}
    return {name: column for name, column in first.items() if column is not None}
