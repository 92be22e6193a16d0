"""The manifest: the file a person edits to say what the ensemble is.

The structures below, with those of `task`, `outputs` and `policy`, are its only definition. The JSON Schema beside it
(`models/manifest.schema.json`) is written from them, and `soundness.parse_manifest` reports every problem of a file at
once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from stepensemble.core.number_limits import LARGEST, Divisor, Number
from stepensemble.core.schema.outputs import Output
from stepensemble.core.schema.policy import Aggregation, Confidence, Mean, Policy, Quorum
from stepensemble.core.schema.task import Task

SCHEMA_VERSION = 1

Identifier = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        description="Lower-case letters, digits, '-' and '_'; at most 64.",
    ),
]
FeatureName = Annotated[str, Meta(pattern=r"^[^=$\s][^=]{0,127}$", description="A field of the payload.")]


class Standard(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="standard"):
    """(value - mean) / std."""

    mean: Number
    std: Divisor


class MinMax(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="min_max"):
    """(value - min) / (max - min); values outside are not clipped."""

    min: Number
    max: Number


class Log1p(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="log1p"):
    """log(1 + value)."""


Scaling = Standard | MinMax | Log1p


class NumberFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="number"):
    """A finite number. One column, named as the feature."""

    name: FeatureName
    min: Annotated[Number | None, Meta(description="Smallest value accepted.")] = None
    max: Annotated[Number | None, Meta(description="Largest value accepted.")] = None
    missing: Annotated[
        Number | None,
        Meta(description="Used, before scaling, where the value is absent; else that is an error."),
    ] = None
    scaling: Annotated[Scaling | None, Meta(description="How the model wants it; as it is by default.")] = None
    # Left out of a release where it is not given, so that releases keep the names they had before there was a choice.
    dtype: Annotated[
        Literal["float32", "float64"] | UnsetType,
        Meta(
            description="Of its column, float32 by default. float64 for models that take float64 or whole numbers "
            "beyond 2^24; models that take float32 are given float32 all the same."
        ),
    ] = UNSET

    @property
    def column_dtype(self) -> Literal["float32", "float64"]:
        """NumPy's name of its column's type."""
        return self.dtype or "float32"


class CategoryFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="category"):
    """One of a vocabulary. Encoded as index: one column; as one_hot: a column a value, `Embarked=C`."""

    name: FeatureName
    vocabulary: Annotated[tuple[str | int, ...], Meta(min_length=1, description="The values, in order.")]
    encoding: Literal["index", "one_hot"] = "index"
    unknown: Annotated[
        Literal["error", "other"],
        Meta(description="A value outside the vocabulary is an error, or one more category named 'other'."),
    ] = "error"
    missing: Annotated[str | int | None, Meta(description="Used where the value is absent; else that is an error.")] = (
        None
    )


class BooleanFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="boolean"):
    """true or false. One column of 1 and 0."""

    name: FeatureName
    missing: Annotated[bool | None, Meta(description="Used where the value is absent; else that is an error.")] = None


class TensorFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="tensor"):
    """Nested lists of a fixed shape, for models that take more than a row of numbers. One column."""

    name: FeatureName
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=1)], ...],
        Meta(min_length=1, description="Shape of one row's tensor, without the batch dimension."),
    ]
    dtype: Literal["float32", "float64", "int32", "int64", "uint8", "int8"] = "float32"


class ImageFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="image"):
    """A picture, PNG, JPEG or WebP: base64 text, or where it lies in S3. One column.

    Each sample, 0 to 255, becomes (sample / scale - mean) / std.
    """

    name: FeatureName
    size: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=2048)], ...],
        Meta(min_length=2, max_length=2, description="Height and width that the model takes."),
    ]
    mode: Annotated[Literal["RGB", "L"], Meta(description="In colour, or L: in grey, by its lightness.")] = "RGB"
    resize: Annotated[
        Literal["stretch", "crop"],
        Meta(
            description="stretch: to the size, whatever its shape; crop: the greatest part of that shape, its middle."
        ),
    ] = "stretch"
    # These two are left out of a release where they are not given, so that releases keep the names they had before.
    filter: Annotated[
        Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] | UnsetType,
        Meta(
            description="What a resize mixes pixels by, bilinear by default; take the one that the models were trained "
            "with."
        ),
    ] = UNSET
    antialias: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether a picture that becomes smaller is averaged over all its pixels, as by default. False, "
            "for bilinear, bicubic and lanczos: only the nearest pixels count, as in tf.image.resize where it does not "
            "antialias."
        ),
    ] = UNSET
    dtype: Annotated[
        Literal["float32", "uint8"], Meta(description="uint8: the samples as they are, without scale, mean and std.")
    ] = "float32"
    scale: Annotated[Divisor, Meta(description="Divides every sample.")] = 255.0
    mean: Annotated[
        tuple[Number, ...] | None, Meta(description="Subtracted after that, a number for each channel.")
    ] = None
    std: Annotated[
        tuple[Divisor, ...] | None,
        Meta(description="Divides at last, a number for each channel."),
    ] = None
    layout: Annotated[
        Literal["HWC", "CHW", "HW", "flat"],
        Meta(
            description="Order of height, width and channels; HW: without channels, for mode L; flat: as HWC, in one "
            "row of numbers."
        ),
    ] = "HWC"
    max_pixels: Annotated[
        int, Meta(ge=1, le=16_000_000, description="A picture that has more is refused before it is decoded.")
    ] = 16_000_000

    @property
    def channels(self) -> int:
        """Samples a pixel: 3 in colour, 1 in grey."""
        return len(self.mode)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row's tensor, without the batch dimension."""
        height, width = self.size
        shapes: dict[str, tuple[int, ...]] = {
            "HWC": (height, width, self.channels),
            "CHW": (self.channels, height, width),
            "HW": (height, width),
            "flat": (height * width * self.channels,),
        }
        return shapes[self.layout]


Feature = NumberFeature | CategoryFeature | BooleanFeature | TensorFeature | ImageFeature


Runtime = Literal["litert", "tensorflow"]


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    """One model version in the ensemble."""

    id: Identifier
    version: Annotated[str, Meta(min_length=1, max_length=64)]
    artifact: Annotated[str, Meta(min_length=1, description="Path of the model file, relative to this manifest.")]
    output: Output
    runtime: Annotated[Runtime, Meta(description="What executes the artifact.")] = "litert"
    weight: Annotated[
        float, Meta(ge=0, le=LARGEST, description="Used by weighted methods, relative to the others.")
    ] = 1.0
    role: Annotated[
        Literal["voter", "shadow"],
        Meta(description="A shadow is called and recorded, and never counts."),
    ] = "voter"
    tier: Annotated[int, Meta(ge=1, description="With a cascade: when it is asked, 1 first.")] = 1
    timeout: Annotated[
        int, Meta(ge=1, le=50, description="Seconds a call may take before the ensemble goes on without it.")
    ] = 10
    columns: Annotated[
        tuple[str, ...] | None,
        Meta(description="The columns the model takes, in its order; all of them by default."),
    ] = None
    inputs: Annotated[
        Mapping[str, tuple[str, ...]] | None,
        Meta(description="For a model with several inputs, instead of columns: which columns each of them takes."),
    ] = None
    signature: Annotated[
        str | None, Meta(description="Which of the artifact's signatures is used; the only one by default.")
    ] = None
    digest: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None,
        Meta(description="SHA-256 of the artifact, where it shall be pinned; checked before publishing."),
    ] = None
    varies: Annotated[
        bool,
        Meta(
            description="Its answer to a row is meant to depend on the rows beside it or on the call, as with dropout "
            "left on: the gate and verify warn of that and do not refuse it."
        ),
    ] = False
    trusted: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None,
        Meta(
            description="SHA-256 of a SavedModel that may do more than compute; written by ensemble add --trust. "
            "Any other file is loaded only if it does nothing else."
        ),
    ] = None


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """An ensemble: what it is asked, who answers, how the answers are combined."""

    schema_version: Annotated[Literal[1], Meta(description="Version of this format.")]
    name: Identifier
    task: Task
    features: Annotated[tuple[Feature, ...], Meta(min_length=1)]
    members: Annotated[tuple[Member, ...], Meta(min_length=1)]
    aggregation: Aggregation = Mean()
    quorum: Quorum = Quorum()
    review: Annotated[
        Confidence | None,
        Meta(description="Rows whose answer shows less are for a person to look at, and EventBridge is told."),
    ] = None
    cascade: Annotated[
        Confidence | None,
        Meta(description="Tiers are asked one after the other; rows whose answer shows this are not sent on."),
    ] = None
    golden: Annotated[
        tuple[Mapping[str, Any], ...],
        Meta(description="Rows that every member is asked at the gate; drawn from the features by default."),
    ] = ()
    schema: Annotated[str, Meta(description="Where editors find this schema.")] = msgspec.field(
        name="$schema", default=""
    )

    @property
    def policy(self) -> Policy:
        """How the members' outputs become an answer."""
        return Policy(self.aggregation, self.quorum, self.review, self.cascade)


class EnsembleMember(Protocol):
    """What the aggregation needs to know of a member, be it of a manifest or of a release."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def output(self) -> Output:
        """What its output means."""

    @property
    def weight(self) -> float:
        """Used by weighted methods."""

    @property
    def role(self) -> Literal["voter", "shadow"]:
        """Whether it counts."""

    @property
    def tier(self) -> int:
        """When it is asked."""


AnyVoice = TypeVar("AnyVoice", bound=EnsembleMember)


def select_voters(members: Iterable[AnyVoice]) -> tuple[AnyVoice, ...]:
    """Return the members that count."""
    return tuple(member for member in members if member.role == "voter")


def column_names(feature: Feature) -> tuple[str, ...]:
    """Name the columns a feature becomes, in order."""
    if isinstance(feature, CategoryFeature) and feature.encoding == "one_hot":
        other = ("other",) if feature.unknown == "other" else ()
        return tuple(f"{feature.name}={value}" for value in (*feature.vocabulary, *other))
    return (feature.name,)


def input_columns(member: Member, columns: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Return the columns of each of a member's inputs; the input of a model that has one is named "".

    Args:
        member: as declared.
        columns: all there are.
    """
    return member.inputs or {"": columns if member.columns is None else member.columns}


def json_schema() -> dict[str, Any]:
    """Return the published JSON Schema (draft 2020-12) of a manifest file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stepensemble manifest",
        **msgspec.json.schema(Manifest),
    }
