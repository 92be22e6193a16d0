"""Precision: which features are given to a model in fewer digits than it takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import UNSET, structs

from stepensemble.core.manifest import Feature, NumberFeature, TensorFeature
from stepensemble.runtimes import Signature

DOUBLES = frozenset({"float64"})
"""Inputs that lose digits without an error: a float32 column has seven of them."""

WHOLES = frozenset({"int32", "int64"})
"""Inputs that refuse whole numbers from 2^24 on in a float32 column."""


def list_narrowed(
    signature: Signature, inputs: Mapping[str, Sequence[str]], features: Sequence[Feature], dtypes: Collection[str]
) -> list[str]:
    """Name the features that inputs of some types are given in float32.

    Categories and booleans are small whole numbers there, and pictures have 256 values a channel: nothing is lost of
    them. A number feature that says `"dtype": "float32"` itself declares that this is enough.

    Args:
        signature: the model's.
        inputs: input name to its columns; the input of a model that has one is named "".
        features: as the manifest has them.
        dtypes: of the inputs that are looked at.
    """
    narrow = {one.name for one in features if _is_narrow(one)}
    taken = {name for tensor in signature.inputs if tensor.dtype in dtypes for name in _columns_of(tensor.name, inputs)}
    return [one.name for one in features if one.name in narrow & taken]


def widen(feature: Feature) -> Feature:
    """Return a number feature that says nothing of its digits in float64, and any other one as it is."""
    if isinstance(feature, NumberFeature) and feature.dtype is UNSET:
        return structs.replace(feature, dtype="float64")
    return feature


def _is_narrow(feature: Feature) -> bool:
    if isinstance(feature, NumberFeature):
        return feature.dtype is UNSET
    return isinstance(feature, TensorFeature) and feature.dtype == "float32"


def _columns_of(name: str, inputs: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return inputs[""] if set(inputs) == {""} else inputs.get(name, ())
