"""What a run's labels are: how they were read, which were not understood, and how they look beside the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from stepensemble.batch.documents import LabelValues, RunPlan
from stepensemble.batch.report.confusion import find_suspicion
from stepensemble.batch.report.statistics import Place, ShardStatistics
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.task import name_classes

SHOWN_CLASSES = 10
"""That are listed with their indexes."""


class LabelSummary(Struct, frozen=True):
    """The column of labels, and how it was read.

    Attributes:
        column: its name.
        values: whether labels were read as the classes' names or as their indexes; None of a regression.
        given: accepted rows with a label.
        unknown: of them, those whose label was not understood: no class by that reading, or no number.
        places: where the first of these are.
        capitals: of the unknown, those that differ from a class's name in capitals alone.
        other: of the unknown, those that mean a class by the other reading.
        confusion: rows by the true class and, within that, by the answered one; empty of many classes.
        doubt: what is strange about labels and answers; None where nothing is.
    """

    column: str
    values: LabelValues | None
    given: int
    unknown: int
    places: tuple[Place, ...] = ()
    capitals: int = 0
    other: int = 0
    confusion: dict[str, dict[str, int]] = {}
    doubt: str | None = None


def summarize_labels(plan: RunPlan, release: Release, tally: ShardStatistics) -> LabelSummary | None:
    """Return what there is to say of the labels; None where the run has no column of them."""
    if plan.options.label is None:
        return None
    read = tally.truth
    return LabelSummary(
        column=plan.options.label,
        values=plan.label_values,
        given=read.given,
        unknown=read.unknown.rows,
        places=read.unknown.places,
        capitals=read.capitals,
        other=read.other,
        confusion=tally.confusion,
        doubt=find_suspicion(name_classes(release.task), tally.confusion),
    )


def describe_truth(truth: LabelSummary, classes: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Say in sentences how labels were read and which were not understood; and of each, whether something is wrong."""
    if truth.values == "indexes":
        shown = [f"{index} = {name}" for index, name in enumerate(classes)]
        more = f", … ({len(classes)} classes)" if len(classes) > SHOWN_CLASSES else ""
        yield f"labels read as indexes: {', '.join(shown[:SHOWN_CLASSES])}{more}", False
    if truth.unknown:
        meant = "a number" if truth.values is None else f"a class's {'name' if truth.values == 'names' else 'index'}"
        places = ", ".join(f"{file} row {row:,}" for file, row in truth.places)
        rest = ", …" if truth.unknown > len(truth.places) else ""
        yield f"{truth.unknown:,} of {truth.given:,} labels not understood, since not {meant}: {places}{rest}", True
    if truth.capitals:
        yield f"{truth.capitals:,} of them differ from a class's name in capitals alone", True
    if truth.other:
        other = "indexes" if truth.values == "names" else "names"
        yield f"{truth.other:,} of them are {other}; --label-values {other} reads the whole column so", True
    if truth.doubt is not None:
        yield truth.doubt, True
