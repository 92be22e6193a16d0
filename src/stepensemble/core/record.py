"""A record: what is kept of an execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.core.aggregation.prediction import Output
from stepensemble.core.errors import RecordUnreadable

FORMAT = 2


class Record(Struct, frozen=True):
    """One execution as it is kept; times are ISO 8601 in UTC.

    Attributes:
        input_digest: by which a doubled execution is told from another one of the same prediction id.
        input: `features` or `instances`, and `quorum`, as they were sent; the rows themselves even where they came by
            pointer.
        output: as the execution answered, outputs and predictions included even where the execution carried pointers.
        failure: why there is no answer; None where there is one.
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
        """The day it was recorded, `YYYY-MM-DD`, by which records are listed."""
        return self.recorded_at[:10]


class RecordSummary(Struct, frozen=True):
    """A record's line in a list."""

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
    """Read a record back.

    Raises:
        RecordUnreadable: it is of a format this version does not know.
    """
    try:
        return msgspec.json.decode(body, type=Record)
    except msgspec.ValidationError as error:
        raise RecordUnreadable(
            f"the record is not of format {FORMAT}, which this version reads ({error}); use another prediction id"
        ) from None
