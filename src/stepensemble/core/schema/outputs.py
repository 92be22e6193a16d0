"""Declares what a member's output means: the `output` of a member in the manifest."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from stepensemble.core.number_limits import Divisor, Number
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask, Task, name_classes

TOLERANCE = 1e-3
"""Default of how far probabilities may be from [0, 1], and their sum from 1: the error of float16 arithmetic."""

Temperature = Annotated[
    Divisor,
    Meta(
        description="Divides the logits (of a probability, its log-odds): above 1 makes the member less certain, below "
        "1 more.",
    ),
]
Tolerance = Annotated[
    float,
    Meta(
        gt=0,
        le=0.1,
        description="How far probabilities may be from [0, 1] and their sum from 1; quantized models need more.",
    ),
]
ClassOrder = Annotated[
    tuple[str, ...] | None,
    Meta(description="The task's classes in the order of this member's outputs; the task's own order by default."),
]
ClassName = Annotated[str | None, Meta(description="The class that it predicts; the task's second by default.")]


class _Output(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    name: Annotated[str | None, Meta(description="The model's output to use, where it has several.")] = None


class Probability(_Output, frozen=True, tag="probability", kw_only=True):
    """The probability of one class of a binary task: one number in [0, 1] for each row."""

    of: ClassName = None
    temperature: Temperature = 1.0
    tolerance: Tolerance = TOLERANCE


class Probabilities(_Output, frozen=True, tag="probabilities", kw_only=True):
    """The probability of every class: numbers in [0, 1] that sum to 1."""

    classes: ClassOrder = None
    temperature: Temperature = 1.0
    tolerance: Tolerance = TOLERANCE


class Logit(_Output, frozen=True, tag="logit", kw_only=True):
    """The log-odds of one class of a binary task: one number for each row; the sigmoid is applied to it."""

    of: ClassName = None
    temperature: Temperature = 1.0


class Logits(_Output, frozen=True, tag="logits", kw_only=True):
    """One number for each class; the softmax is applied to them."""

    classes: ClassOrder = None
    temperature: Temperature = 1.0


class Label(_Output, frozen=True, tag="label", kw_only=True):
    """Only a class: its index, or its name."""

    classes: ClassOrder = None
    one_hot: Annotated[
        bool,
        Meta(description="Let methods that average probabilities read a label as probability 1 for its class."),
    ] = False


class Value(_Output, frozen=True, tag="value", kw_only=True):
    """The number of a regression; scale * number + offset is in the ensemble's unit."""

    scale: Annotated[Number, Meta(description="Not 0.")] = 1.0
    offset: Number = 0.0


Output = Probability | Probabilities | Logit | Logits | Label | Value

OUTPUT_KINDS: dict[type, frozenset[str]] = {
    BinaryTask: frozenset({"probability", "probabilities", "logit", "logits", "label"}),
    MulticlassTask: frozenset({"probabilities", "logits", "label"}),
    RegressionTask: frozenset({"value"}),
}
"""The kinds of output that each task accepts."""


def name_kind(output: Output) -> str:
    """Return the name that the manifest gives a kind of output."""
    return str(output.__struct_config__.tag)


def output_width(task: Task, output: Output) -> int:
    """Return how many entries a member's output has for each row."""
    return len(name_classes(task)) if isinstance(output, Probabilities | Logits) else 1
