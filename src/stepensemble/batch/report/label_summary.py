"""Summarizes a run's labels: how they were read, which were not recognized, and how they compare with predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from stepensemble.batch.documents import LabelValues, RunPlan
from stepensemble.batch.report.confusion import find_warning
from stepensemble.batch.report.statistics import RowLocation, ShardStatistics
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.task import name_classes

SHOWN_CLASSES = 10
"""Classes that are listed with their indexes."""


class LabelSummary(Struct, frozen=True):
    """The column of labels, which is the ground truth of a run, and how it was read.

    Attributes:
        column: its name.
        label_values: whether labels were read as the classes' names or as their indexes; None for a regression.
        rows: accepted rows with a label.
        unrecognized: those of them whose label is no class as the column is read, or no number.
        examples: the first rows with such a label.
        case_mismatches: unrecognized labels that differ from a class's name in upper and lower case only.
        other_reading: unrecognized labels that would be a class if the column were read the other way.
        confusion: rows by true class, then by predicted class; empty for a regression and for many classes.
        warning: what is unusual about labels and predictions; None if nothing is.
    """

    column: str
    label_values: LabelValues | None
    rows: int
    unrecognized: int
    examples: tuple[RowLocation, ...] = ()
    case_mismatches: int = 0
    other_reading: int = 0
    confusion: dict[str, dict[str, int]] = {}
    warning: str | None = None


class LabelNote(NamedTuple):
    """A sentence about the labels, and whether it is a warning."""

    text: str
    is_warning: bool


def summarize_labels(plan: RunPlan, release: Release, statistics: ShardStatistics) -> LabelSummary | None:
    """Return the summary of a run's labels; None if the run has no column of labels."""
    if plan.options.label is None:
        return None
    counts = statistics.ground_truth
    return LabelSummary(
        column=plan.options.label,
        label_values=plan.label_values,
        rows=counts.rows,
        unrecognized=counts.unrecognized.rows,
        examples=counts.unrecognized.examples,
        case_mismatches=counts.case_mismatches,
        other_reading=counts.other_reading,
        confusion=statistics.confusion,
        warning=find_warning(name_classes(release.task), statistics.confusion),
    )


def describe_labels(labels: LabelSummary, classes: Sequence[str]) -> Iterator[LabelNote]:
    """Describe in sentences how labels were read, and which were not recognized."""
    if labels.label_values == "indexes":
        shown = [f"{index} = {name}" for index, name in enumerate(classes)]
        more = f", … ({len(classes)} classes)" if len(classes) > SHOWN_CLASSES else ""
        yield LabelNote(f"labels read as indexes: {', '.join(shown[:SHOWN_CLASSES])}{more}", is_warning=False)
    if labels.unrecognized:
        kind = "name" if labels.label_values == "names" else "index"
        expected = "numbers" if labels.label_values is None else f"the {kind} of a class"
        places = ", ".join(f"{file} row {row:,}" for file, row in labels.examples)
        rest = ", …" if labels.unrecognized > len(labels.examples) else ""
        yield LabelNote(
            f"{labels.unrecognized:,} of {labels.rows:,} labels are not {expected}: {places}{rest}", is_warning=True
        )
    if labels.case_mismatches:
        yield LabelNote(
            f"{labels.case_mismatches:,} of them differ from a class's name in upper and lower case only",
            is_warning=True,
        )
    if labels.other_reading:
        other = "indexes" if labels.label_values == "names" else "names"
        yield LabelNote(
            f"{labels.other_reading:,} of them are {other}; --label-values {other} reads the whole column as {other}",
            is_warning=True,
        )
    if labels.warning is not None:
        yield LabelNote(labels.warning, is_warning=True)
