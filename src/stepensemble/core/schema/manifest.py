"""The manifest: the file in which a person declares an ensemble.

The structures below, with those of `task`, `outputs` and `policy`, are its only definition. The JSON Schema
(`models/manifest.schema.json`) is generated from them, and `validation.manifest.parse_manifest` reports all problems of
a file at once.
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
        Meta(description="Replaces an absent value, before scaling; without it an absent value is an error."),
    ] = None
    scaling: Annotated[
        Scaling | None, Meta(description="How the value is scaled for the model; not at all by default.")
    ] = None
    # Omitted from a release where it is not given, so that earlier releases keep their digests.
    dtype: Annotated[
        Literal["float32", "float64"] | UnsetType,
        Meta(
            description="Type of its column, float32 by default. float64 for models that take float64 or whole numbers "
            "beyond 2^24; models that take float32 get float32 in any case."
        ),
    ] = UNSET

    @property
    def column_dtype(self) -> Literal["float32", "float64"]:
        """NumPy's name of the column's type."""
        return self.dtype or "float32"


class CategoryFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="category"):
    """One of a vocabulary. Encoded as index: one column; as one_hot: one column for each value, `Embarked=C`."""

    name: FeatureName
    vocabulary: Annotated[tuple[str | int, ...], Meta(min_length=1, description="The values, in order.")]
    encoding: Literal["index", "one_hot"] = "index"
    unknown: Annotated[
        Literal["error", "other"],
        Meta(description="A value outside the vocabulary is an error, or one more category named 'other'."),
    ] = "error"
    missing: Annotated[
        str | int | None, Meta(description="Replaces an absent value; without it an absent value is an error.")
    ] = None


class BooleanFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="boolean"):
    """true or false. One column of 1 and 0."""

    name: FeatureName
    missing: Annotated[
        bool | None, Meta(description="Replaces an absent value; without it an absent value is an error.")
    ] = None


class TensorFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="tensor"):
    """Nested lists of a fixed shape, for models that take more than a row of numbers. One column."""

    name: FeatureName
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=1)], ...],
        Meta(min_length=1, description="Shape of one row's tensor, without the batch dimension."),
    ]
    dtype: Literal["float32", "float64", "int32", "int64", "uint8", "int8"] = "float32"


class ImageFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="image"):
    """An image, PNG, JPEG or WebP: base64 text, or a pointer to S3. One column.

    Each sample, 0 to 255, becomes (sample / scale - mean) / std.
    """

    name: FeatureName
    size: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=2048)], ...],
        Meta(min_length=2, max_length=2, description="Height and width that the model takes."),
    ]
    mode: Annotated[Literal["RGB", "L"], Meta(description="RGB: in colour; L: in grey, by lightness.")] = "RGB"
    resize: Annotated[
        Literal["stretch", "crop"],
        Meta(
            description="stretch: to the size, whatever the aspect ratio; crop: the largest centred part with the "
            "aspect ratio of the size."
        ),
    ] = "stretch"
    # These two are omitted from a release where they are not given, so that earlier releases keep their digests.
    filter: Annotated[
        Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] | UnsetType,
        Meta(description="Filter of the resize, bilinear by default; use the one that the models were trained with."),
    ] = UNSET
    antialias: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether downsizing averages over all pixels, true by default. False, for bilinear, bicubic "
            "and lanczos: only the nearest pixels count, as in tf.image.resize without antialias."
        ),
    ] = UNSET
    dtype: Annotated[
        Literal["float32", "uint8"], Meta(description="uint8: the raw samples, without scale, mean and std.")
    ] = "float32"
    scale: Annotated[Divisor, Meta(description="Divides every sample.")] = 255.0
    mean: Annotated[
        tuple[Number, ...] | None, Meta(description="Subtracted after scaling, one number for each channel.")
    ] = None
    std: Annotated[
        tuple[Divisor, ...] | None,
        Meta(description="Divides last, one number for each channel."),
    ] = None
    layout: Annotated[
        Literal["HWC", "CHW", "HW", "flat"],
        Meta(
            description="Order of height, width and channels; HW: without channels, for mode L; flat: as HWC, in one "
            "row of numbers."
        ),
    ] = "HWC"
    max_pixels: Annotated[
        int, Meta(ge=1, le=16_000_000, description="An image with more pixels is rejected before it is decoded.")
    ] = 16_000_000

    @property
    def channels(self) -> int:
        """Samples of each pixel: 3 in colour, 1 in grey."""
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
    runtime: Annotated[Runtime, Meta(description="The runtime that executes the artifact.")] = "litert"
    weight: Annotated[
        float, Meta(ge=0, le=LARGEST, description="Used by weighted methods, relative to the others.")
    ] = 1.0
    role: Annotated[
        Literal["voter", "shadow"],
        Meta(description="A voter counts; a shadow is invoked and recorded, and never counts."),
    ] = "voter"
    tier: Annotated[int, Meta(ge=1, description="With a cascade: the order in which members are invoked, 1 first.")] = 1
    timeout: Annotated[
        int, Meta(ge=1, le=50, description="Seconds before the ensemble continues without this member.")
    ] = 10
    columns: Annotated[
        tuple[str, ...] | None,
        Meta(description="The columns the model takes, in its order; all of them by default."),
    ] = None
    inputs: Annotated[
        Mapping[str, tuple[str, ...]] | None,
        Meta(description="Instead of columns, for a model with several inputs: the columns of each input."),
    ] = None
    signature: Annotated[
        str | None, Meta(description="The signature of the artifact to use; the only one by default.")
    ] = None
    digest: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None,
        Meta(description="SHA-256 of the artifact, to pin it; checked before publishing."),
    ] = None
    varies: Annotated[
        bool,
        Meta(
            description="Its output for a row may depend on the rows beside it or on the call, as with dropout left "
            "on: the gate and verify then warn instead of failing."
        ),
    ] = False
    trusted: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None,
        Meta(
            description="SHA-256 of a SavedModel that may do more than compute; ensemble add --trust writes it. "
            "Any other SavedModel is loaded only if it does nothing but compute."
        ),
    ] = None


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """An ensemble: its features, its members, and how their outputs are combined."""

    schema_version: Annotated[Literal[1], Meta(description="Version of this format.")]
    name: Identifier
    task: Task
    features: Annotated[tuple[Feature, ...], Meta(min_length=1)]
    members: Annotated[tuple[Member, ...], Meta(min_length=1)]
    aggregation: Aggregation = Mean()
    quorum: Quorum = Quorum()
    review: Annotated[
        Confidence | None,
        Meta(description="Rows that are less certain get the decision review, and an event is sent to EventBridge."),
    ] = None
    cascade: Annotated[
        Confidence | None,
        Meta(description="Tiers are invoked in order; rows that are this certain are not sent to the next tier."),
    ] = None
    golden: Annotated[
        tuple[Mapping[str, Any], ...],
        Meta(description="Rows that every member predicts at the gate; drawn at random from the features by default."),
    ] = ()
    schema: Annotated[str, Meta(description="Where editors find this schema.")] = msgspec.field(
        name="$schema", default=""
    )

    @property
    def policy(self) -> Policy:
        """How the members' outputs become a prediction."""
        return Policy(self.aggregation, self.quorum, self.review, self.cascade)


class EnsembleMember(Protocol):
    """What the aggregation needs to know about a member, of a manifest or of a release."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def output(self) -> Output:
        """What its output means."""

    @property
    def weight(self) -> float:
        """Its weight in weighted methods."""

    @property
    def role(self) -> Literal["voter", "shadow"]:
        """Whether it counts."""

    @property
    def tier(self) -> int:
        """The tier in which it is invoked."""


AnyMember = TypeVar("AnyMember", bound=EnsembleMember)


def select_voters(members: Iterable[AnyMember]) -> tuple[AnyMember, ...]:
    """Return the members that count."""
    return tuple(member for member in members if member.role == "voter")


def column_names(feature: Feature) -> tuple[str, ...]:
    """Return the names of the columns that a feature is encoded to, in order."""
    if isinstance(feature, CategoryFeature) and feature.encoding == "one_hot":
        other = ("other",) if feature.unknown == "other" else ()
        return tuple(f"{feature.name}={value}" for value in (*feature.vocabulary, *other))
    return (feature.name,)


def input_columns(member: Member, columns: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Return the columns of each input of a member; a single input is named "".

    Args:
        member: as declared.
        columns: all columns of the manifest.
    """
    return member.inputs or {"": columns if member.columns is None else member.columns}


def json_schema() -> dict[str, Any]:
    """Return the published JSON Schema (draft 2020-12) of a manifest file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stepensemble manifest",
        **msgspec.json.schema(Manifest),
    }
