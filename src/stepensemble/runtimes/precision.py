"""Precision: finds features that a model gets with fewer digits than it takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import UNSET, structs

from stepensemble.core.errors import InputMismatch
from stepensemble.core.preprocessing.precision import is_narrow
from stepensemble.core.problems import show
from stepensemble.core.schema.manifest import Feature, NumberFeature
from stepensemble.runtimes.model import Signature

DOUBLES = frozenset({"float64"})
"""Inputs that lose digits without an error: a float32 column has seven of them."""

WHOLES = frozenset({"int32", "int64"})
"""Inputs that reject whole numbers from 2^24 on in a float32 column."""


def list_narrowed(
    signature: Signature, inputs: Mapping[str, Sequence[str]], features: Sequence[Feature], dtypes: Collection[str]
) -> list[str]:
    """List the features for which `is_narrow` is true, and that inputs of some dtypes get in float32.

    Args:
        signature: the model's.
        inputs: input name to its columns; the only input of a model is named "".
        features: as the manifest has them.
        dtypes: of the inputs to check.
    """
    narrow = {one.name for one in features if is_narrow(one)}
    taken = {name for tensor in signature.inputs if tensor.dtype in dtypes for name in _columns_of(tensor.name, inputs)}
    return [one.name for one in features if one.name in narrow & taken]


def widen(feature: Feature) -> Feature:
    """Return a number feature without a dtype as float64, and any other feature unchanged."""
    if isinstance(feature, NumberFeature) and feature.dtype is UNSET:
        return structs.replace(feature, dtype="float64")
    return feature


def reject_narrowed(signature: Signature, narrow: Mapping[str, str]) -> None:
    """Reject a model that takes float64 where its columns are float32 and no manifest declares that as enough.

    The gate rejects such a member before it is published; this is for those that did not pass it.

    Args:
        signature: the model's.
        narrow: as `core.preprocessing.precision.list_narrow_inputs` returns it.

    Raises:
        InputMismatch: with a feature and the remedy.
    """
    for tensor in signature.inputs:
        feature = narrow.get("" if set(narrow) == {""} else tensor.name)
        if tensor.dtype in DOUBLES and feature is not None:
            raise InputMismatch(
                f"the model takes float64, and gets {show(feature)} in float32, in which 16777217 is 16777216: "
                f'give the features that it takes, such as {show(feature)}, "dtype": "float64", or number features '
                '"float32" where seven digits are enough'
            )


def _columns_of(name: str, inputs: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return inputs[""] if set(inputs) == {""} else inputs.get(name, ())
