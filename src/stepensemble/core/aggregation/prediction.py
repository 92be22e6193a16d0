"""From arrays of predictions to one `Prediction` a row, and to columns under the published names."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np
from msgspec import UNSET

from stepensemble.core.aggregation.classification import ABSTAINED
from stepensemble.core.aggregation.decision import DecidedRows, FailedRows
from stepensemble.core.aggregation.output import Prediction, ShadowReport
from stepensemble.core.aggregation.row_predictions import ClassPredictions, RowPredictions
from stepensemble.core.arrays import Array, Integers
from stepensemble.core.schema.task import RegressionTask, Task, name_classes


class ExplainedRows(NamedTuple):
    """Rows without a prediction, with the reason of each."""

    rows: FailedRows
    reasons: Sequence[str]


def list_predictions(
    task: Task, decided: Sequence[DecidedRows], failed: Sequence[ExplainedRows] = (), *, tiers: int
) -> list[Prediction]:
    """Turn arrays into one `Prediction` a row, in the order of the rows.

    Args:
        task: what is predicted.
        decided: the rows that have a prediction.
        failed: those that have none.
        tiers: how many there are.
    """
    if len(decided) == 1 and not failed:
        return _list_decided(task, decided[0], cascaded=tiers > 1)
    numbers = [part.numbers for part in decided] + [part.numbers for part, _ in failed]
    listed = [one for part in decided for one in _list_decided(task, part, cascaded=tiers > 1)]
    label = UNSET if isinstance(task, RegressionTask) else None
    for part, reasons in failed:
        missing = list(part.missing)
        listed += [
            Prediction(
                None, None, None, "failed", label, tier=tiers if tiers > 1 else UNSET, missing=missing, failure=reason
            )
            for reason in reasons
        ]
    return [listed[place] for place in np.argsort(np.concatenate([*numbers, np.arange(0)])).tolist()]


def collect_measures(predictions: RowPredictions) -> dict[str, Array]:
    """Return the numbers and flags of predictions under their published names, an array each.

    `value` and `score` are NaN where there is none.
    """
    arrays: dict[str, Array] = {
        "value": predictions.value,
        "spread": predictions.spread.std,
        "range": predictions.spread.range,
    }
    if predictions.classes is None:
        return arrays
    classes = predictions.classes
    best = np.maximum(classes.label, 0)[:, None]
    score = np.take_along_axis(classes.probabilities, best, axis=1)[:, 0]
    return arrays | {
        "score": np.where(classes.label == ABSTAINED, np.nan, score),
        "probabilities": classes.probabilities,
        "agreement": classes.agreement,
        "tie": classes.tie,
        "margin": classes.margin,
        "entropy": classes.entropy,
        "mean_entropy": classes.mean_entropy,
        "mutual_information": classes.entropy - classes.mean_entropy,
    }


DECISIONS = ("accept", "abstain", "review")


def encode_decisions(predictions: RowPredictions) -> Integers:
    """Return each row's decision as an index of `DECISIONS`."""
    abstained: Any = False if predictions.classes is None else predictions.classes.label == ABSTAINED
    return np.where(predictions.review, DECISIONS.index("review"), np.where(abstained, DECISIONS.index("abstain"), 0))


def _list_decided(task: Task, part: DecidedRows, *, cascaded: bool) -> list[Prediction]:
    predictions = part.predictions
    rows = len(part.numbers)
    columns: dict[str, Sequence[Any]] = dict.fromkeys(Prediction.__struct_fields__, [UNSET] * rows)
    columns |= {name: array.tolist() for name, array in collect_measures(predictions).items()}
    columns["value"] = _list_present(columns["value"])
    columns["decision"] = [DECISIONS[code] for code in encode_decisions(predictions).tolist()]
    if predictions.classes is not None:
        columns["score"] = _list_present(columns["score"])
        columns |= _list_names(task, predictions.classes, part.voters)
    if cascaded:
        columns["tier"] = [part.tier] * rows
    if predictions.shadows:
        columns["shadows"] = _list_shadows(predictions, rows)
    if part.missing:
        columns["missing"] = [list(part.missing)] * rows
    return [Prediction(*row) for row in zip(*columns.values(), strict=True)]  # by position: by name takes longer


def _list_present(numbers: Sequence[float]) -> list[float | None]:
    return [None if isnan(number) else number for number in numbers]


def _list_names(task: Task, classes: ClassPredictions, voters: Sequence[str]) -> dict[str, Sequence[Any]]:
    names = (*name_classes(task), None)  # ABSTAINED, -1, is the last
    pivotal: list[list[str]] = [[] for _ in classes.label]
    for row, voter in np.argwhere(classes.pivotal).tolist():
        pivotal[row].append(voters[voter])
    return {"label": [names[label] for label in classes.label.tolist()], "pivotal": pivotal}


def _list_shadows(predictions: RowPredictions, rows: int) -> Sequence[Any]:
    listed = {
        id_: [
            ShadowReport(agrees, flips)
            for agrees, flips in zip(
                view.agrees.tolist(), [None] * rows if view.flips is None else view.flips.tolist(), strict=True
            )
        ]
        for id_, view in predictions.shadows.items()
    }
    return [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]
