"""Servables: the ensemble and its members by name, their versions, their inputs and outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import Struct

from stepensemble.core.errors import LabelUnknown, ServableNotFound
from stepensemble.core.releases.release import Current, Release, ReleasedMember
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    ImageFeature,
    NumberFeature,
    TensorFeature,
)
from stepensemble.core.schema.outputs import Label, output_width
from stepensemble.core.schema.task import BinaryTask, RegressionTask

VERSION_DIGITS = 13
"""Hex digits of a release's digest that make its version: 52 bits, which a JSON number holds exactly."""

DEFAULT = "serving_default"
FEATURES = "features"
PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))

INPUT, OUTPUT = "inputs", "output_0"
"""Names of a model's only input and only output, where the model's own names are unknown."""

Dtype = Literal["float32", "float64", "int32", "int64", "uint8", "int8"]
DTYPES: Mapping[str, str] = {
    "bool": "DT_BOOL",
    "float16": "DT_HALF",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "int8": "DT_INT8",
    "int16": "DT_INT16",
    "int32": "DT_INT32",
    "int64": "DT_INT64",
    "string": "DT_STRING",
    "uint8": "DT_UINT8",
    "uint16": "DT_UINT16",
    "uint32": "DT_UINT32",
    "uint64": "DT_UINT64",
}
"""TensorFlow's names of data types, by NumPy's; text is "string"."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a model: its type, and the shape of a row."""

    dtype: Dtype
    shape: tuple[int, ...]


class ModelTensor(Struct, frozen=True):
    """An input or an output of a model, with the model's own name for it.

    Attributes:
        dtype: NumPy's name, or "string".
        shape: of a row; a size is None where any fits, and the shape is None where the model does not state it.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


class ModelSignature(Struct, frozen=True):
    """A model's inputs and outputs as callers see them; a quantized tensor appears as float."""

    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]


@dataclass(frozen=True, slots=True)
class Servable:
    """What a caller names: the ensemble, or one of its members.

    Attributes:
        signature: of the member's model; None if it is unknown.
    """

    release: Release
    member: ReleasedMember | None
    signature: ModelSignature | None = None

    @property
    def name(self) -> str:
        """The name that a caller uses."""
        return self.release.name if self.member is None else self.member.id


def version_of(release: str) -> int:
    """Return a release's version number for TensorFlow Serving's clients: the first hex digits of its digest."""
    return int(release[:VERSION_DIGITS], 16)


def find_servable(release: Release, name: str, version: int | None = None) -> Servable:
    """Return what a release serves under a name.

    Args:
        release: to search.
        name: the ensemble's, which takes precedence, or a member's.
        version: that the caller requested; for the message.

    Raises:
        ServableNotFound: it serves nothing of that name.
    """
    if name == release.name:
        return Servable(release, None)
    member = next((member for member in release.members if member.id == name), None)
    if member is None:
        raise make_not_found_error(name, version)
    return Servable(release, member)


def make_not_found_error(name: str, version: int | None = None) -> ServableNotFound:
    """Return the error, in TensorFlow Serving's words, that nothing of that name is served."""
    requested = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return ServableNotFound(f"Servable not found for request: {requested}")


def make_status_not_found_error(name: str, version: int | None) -> ServableNotFound:
    """Return the same error for a status request, in TensorFlow Serving's words."""
    requested = "any versions" if version is None else f"version {version}"
    return ServableNotFound(f"Could not find {requested} of model {name}")


def find_release(current: Current, name: str, version: int | None, label: str | None) -> str | None:
    """Return the digest of the release that a caller requests; None if any release may serve.

    Args:
        current: the pointer.
        name: of the servable; for the message.
        version: of the current release or of the canary.
        label: `stable` for the current release, `canary` for the canary.

    Raises:
        ServableNotFound: no release of that version is served.
        LabelUnknown: there is no such label, or no canary at present.
    """
    served = list_served(current)
    if version is not None:
        found = next((digest for digest in served if version_of(digest) == version), None)
        if found is None:
            raise make_not_found_error(name, version)
        return found
    if label is None:
        return None
    labelled = dict(zip(("stable", "canary"), served, strict=False))
    if label not in labelled:
        raise LabelUnknown(f"Unrecognized servable version label: {label}")
    return labelled[label]


def list_served(current: Current) -> tuple[str, ...]:
    """Return the digests of the served releases: the current one and, if there is one, the canary."""
    return (current.release, *(() if current.canary is None else (current.canary.release,)))


def describe_status(releases: Sequence[str]) -> dict[str, Any]:
    """Return the status of these releases' versions; each of them is available."""
    return {
        "model_version_status": [
            {
                "version": str(version_of(release)),
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for release in releases
        ]
    }


def describe_metadata(servable: Servable, release: str) -> dict[str, Any]:
    """Return a servable's signatures, each with the names, types and shapes of its inputs and outputs.

    Args:
        servable: to describe.
        release: digest of its release.
    """
    return {
        "model_spec": {"name": servable.name, "signature_name": "", "version": str(version_of(release))},
        "metadata": {"signature_def": {"signature_def": _list_signatures(servable)}},
    }


def list_signature_names(servable: Servable) -> tuple[str, ...]:
    """Return every signature name that a caller may use; the first is the default."""
    own = servable.member.signature if servable.member is not None else None
    return (DEFAULT, FEATURES, PREDICT, CLASSIFY, REGRESS, *(() if own is None else (own,)))


def list_inputs(servable: Servable, used: Collection[str] = ()) -> dict[str, Input]:
    """Return the inputs of a member's model by name; none for the ensemble, which takes features.

    A model's only input needs no name in a manifest. It then has the model's own name, if that is known, or `inputs`
    if a caller uses that.

    Args:
        servable: the member.
        used: names that a caller uses.
    """
    if servable.member is None:
        return {}
    tensors = {one.name: one for one in servable.release.features if isinstance(one, TensorFeature | ImageFeature)}
    doubles = {one.name for one in servable.release.features if _is_double(one)}
    inputs: dict[str, Input] = {}
    for name, columns in servable.member.inputs.items():
        tensor = tensors.get(columns[0]) if len(columns) == 1 else None
        inputs[name or _name_input(servable, used)] = (
            Input("float32" if doubles.isdisjoint(columns) else "float64", (len(columns),))
            if tensor is None
            else Input(tensor.dtype, tuple(tensor.shape))
        )
    return inputs


def _is_double(feature: Feature) -> bool:
    return isinstance(feature, NumberFeature) and feature.column_dtype == "float64"


def _name_input(servable: Servable, used: Collection[str]) -> str:
    own = () if servable.signature is None else servable.signature.inputs
    return INPUT if INPUT in used or len(own) != 1 else own[0].name


def _list_signatures(servable: Servable) -> dict[str, Any]:
    features = {feature.name: _describe_feature(feature) for feature in servable.release.features}
    outputs = _describe_outputs(servable)
    inputs = _describe_inputs(servable) or features
    signatures = {
        DEFAULT: {"inputs": inputs, "outputs": outputs, "method_name": PREDICT},
        FEATURES: {"inputs": features, "outputs": outputs, "method_name": PREDICT},
    }
    examples = {"inputs": _describe_tensor("examples", "DT_STRING", ())}
    task = servable.release.task
    if not isinstance(task, RegressionTask):
        classes = (len(task.classes),)
        signatures[CLASSIFY] = {
            "inputs": examples,
            "outputs": {
                "classes": _describe_tensor("classes", "DT_STRING", classes),
                "scores": _describe_tensor("scores", "DT_FLOAT", classes),
            },
            "method_name": CLASSIFY,
        }
    if isinstance(task, RegressionTask | BinaryTask):
        value = {"outputs": _describe_tensor("value", "DT_FLOAT", ())}
        signatures[REGRESS] = {"inputs": examples, "outputs": value, "method_name": REGRESS}
    return signatures


def _describe_inputs(servable: Servable) -> dict[str, Any]:
    if servable.member is not None and servable.signature is not None:
        return {one.name: _describe_own(one) for one in servable.signature.inputs}
    return {name: _describe_tensor(name, DTYPES[one.dtype], one.shape) for name, one in list_inputs(servable).items()}


def _describe_outputs(servable: Servable) -> dict[str, Any]:
    task, member = servable.release.task, servable.member
    if member is not None:
        own = () if servable.signature is None else servable.signature.outputs
        wanted = [one for one in own if len(own) == 1 or one.name == member.output.name]
        if wanted:
            return {one.name: _describe_own(one) for one in wanted}
        dtype = "DT_INT64" if isinstance(member.output, Label) else "DT_FLOAT"
        name = member.output.name or OUTPUT
        return {name: _describe_tensor(name, dtype, (output_width(task, member.output),))}
    if isinstance(task, RegressionTask):
        return {"value": _describe_tensor("value", "DT_FLOAT", ())}
    numbers = (
        {"probability": _describe_tensor("probability", "DT_FLOAT", ())}
        if isinstance(task, BinaryTask)
        else {"probabilities": _describe_tensor("probabilities", "DT_FLOAT", (len(task.classes),))}
    )
    return numbers | {"label": _describe_tensor("label", "DT_STRING", ())}


def _describe_feature(feature: Feature) -> dict[str, Any]:
    match feature:
        case NumberFeature():
            return _describe_tensor(feature.name, DTYPES[feature.column_dtype], ())
        case BooleanFeature():
            return _describe_tensor(feature.name, "DT_BOOL", ())
        case CategoryFeature():
            whole = all(isinstance(value, int) for value in feature.vocabulary)
            return _describe_tensor(feature.name, "DT_INT64" if whole else "DT_STRING", ())
        case TensorFeature():
            return _describe_tensor(feature.name, DTYPES[feature.dtype], tuple(feature.shape))
        case ImageFeature():  # the bytes of its file
            return _describe_tensor(feature.name, "DT_STRING", ())


def _describe_own(tensor: ModelTensor) -> dict[str, Any]:
    dtype = DTYPES.get(tensor.dtype, "DT_INVALID")
    if tensor.shape is None:
        return {"dtype": dtype, "tensor_shape": {"dim": [], "unknown_rank": True}, "name": f"{tensor.name}:0"}
    return _describe_tensor(tensor.name, dtype, tuple(-1 if size is None else size for size in tensor.shape))


def _describe_tensor(name: str, dtype: str, row: tuple[int, ...]) -> dict[str, Any]:
    """Describe a tensor of any number of rows as TensorInfo in JSON, which writes sizes as text."""
    dimensions = [{"size": str(size), "name": ""} for size in (-1, *row)]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": f"{name}:0",
    }
