"""A record: what is stored of an execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.core.aggregation.output import Output
from stepensemble.core.errors import RecordUnreadable

FORMAT = 3
"""Version of the stored form; `decode_record` reads the one before it too."""

DECISIONS_BEFORE_3 = {"answer": "accept"}
"""Values of `decision` that format 3 renamed."""


class Record(Struct, frozen=True):
    """One execution as it is stored; times are ISO 8601 in UTC.

    Attributes:
        input_digest: two executions with the same prediction id and the same digest have the same input.
        input: `features` or `instances`, and `quorum`, as they were sent; the rows themselves even if the payload had a
            pointer.
        output: the execution's output, with the outputs and predictions even if the execution returned pointers.
        failure: why there is no prediction; None where there is one.
    """

    prediction_id: str
    release: str
    execution: str
    started_at: str
    recorded_at: str
    rows: int
    input_digest: str
    input: Mapping[str, Any]
    output: Output
    metadata: Mapping[str, Any] = {}
    failure: str | None = None
    format: int = FORMAT

    @property
    def day(self) -> str:
        """The day it was recorded, `YYYY-MM-DD`; records are listed by it."""
        return self.recorded_at[:10]


class RecordSummary(Struct, frozen=True):
    """A record's entry in a list."""

    prediction_id: str
    recorded_at: str
    status: str
    release: str
    rows: int
    execution: str


def encode_record(record: Record) -> bytes:
    """Return a record as JSON."""
    return msgspec.json.encode(record)


def decode_record(body: bytes | str) -> Record:
    """Decode a record of this format or of format 2.

    Raises:
        RecordUnreadable: it is of another format.
    """
    try:
        return msgspec.json.decode(body, type=Record)
    except msgspec.ValidationError as error:
        mismatch = error
    try:
        return msgspec.convert(_upgrade(msgspec.json.decode(body)), Record)
    except (msgspec.ValidationError, KeyError, TypeError, AttributeError):
        raise RecordUnreadable(
            f"the record is not of format {FORMAT}, which this version reads ({mismatch}); use another prediction id"
        ) from None


def _upgrade(record: dict[str, Any]) -> dict[str, Any]:
    """Rename what format 3 renamed in the output of format 2."""
    output = dict(record["output"])
    participation = {
        role: {"invoked": counts["asked"], "responded": counts["answered"], "weight": counts["weight"]}
        for role, counts in output.pop("attendance").items()
    }
    predictions = [
        {**prediction, "decision": DECISIONS_BEFORE_3.get(prediction["decision"], prediction["decision"])}
        for prediction in output["predictions"]
    ]
    rows_failed = output.pop("unanswered", 0)
    output |= {"participation": participation, "predictions": predictions, "rows_failed": rows_failed}
    return {**record, "output": output, "format": FORMAT}
