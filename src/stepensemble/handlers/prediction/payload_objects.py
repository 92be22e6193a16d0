"""Reads rows and images that a payload points to in S3: Normalize validates them, Aggregate records the rows."""

from __future__ import annotations

from itertools import islice

import msgspec
import numpy as np

from stepensemble.batch.input.repeated_keys import find_suspects
from stepensemble.core.errors import InvalidPayload, ObjectMissing
from stepensemble.core.payload import Pointer, Rows, check_instances
from stepensemble.core.problems import Problem
from stepensemble.core.strict_json import describe_syntax, read_json
from stepensemble.storage.keys import INBOX, PAYLOADS
from stepensemble.storage.objects import Bucket

ROWS_AT_ONCE = 256
"""How many rows are searched at once for keys that are given twice."""


def read_rows(data: Bucket, pointer: Pointer) -> Rows:
    """Read the rows that a payload points to.

    Raises:
        InvalidPayload: the pointer is not below the data bucket's `payloads/`, the object is missing or is not a list
            of rows, or a row has a key twice.
    """
    bucket, key = pointer.split()
    if bucket != data.name or not key.startswith(PAYLOADS):
        problem = Problem("$.instances.s3", f"{pointer.s3} is elsewhere", f"use s3://{data.name}/{PAYLOADS}…")
        raise InvalidPayload([problem])
    try:
        body = data.read(key)
        instances = msgspec.json.decode(body)
        if isinstance(instances, list):
            _refuse_repeated_keys(body)
    except ObjectMissing:
        problem = Problem("$.instances.s3", f"{pointer.s3} is not there", "upload the rows first")
        raise InvalidPayload([problem]) from None
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        message = f"{pointer.s3} is not JSON: {describe_syntax(body, error)}"
        problem = Problem("$.instances.s3", message, "upload a JSON list of rows")
        raise InvalidPayload([problem]) from None
    rows, problems = check_instances(instances)
    if problems:
        raise InvalidPayload(problems)
    return rows


def _refuse_repeated_keys(body: bytes) -> None:
    """Reject rows with a key that is given twice, which only the text of the JSON shows."""
    rows = iter(msgspec.json.decode(body, type=list[msgspec.Raw]))
    while some := [bytes(row) for row in islice(rows, ROWS_AT_ONCE)]:
        suspects = find_suspects(b"".join(some), np.cumsum([len(row) for row in some]))
        for place in np.flatnonzero(suspects).tolist():
            read_json(some[place])


FILE_BYTES = 32 * 1024 * 1024
"""Most bytes of an image file; Normalize has 512 MB in total."""


def fetch_image(data: Bucket, url: str) -> bytes | tuple[str, str]:
    """Read an image file from the data bucket's `payloads/` or `inbox/`.

    Returns the file's content, or else why the pointer is rejected, with the remedy.

    Raises:
        StorageUnavailable: S3 fails; the state machine tries again.
    """
    bucket, key = Pointer(url).split()
    if bucket != data.name or not key.startswith((PAYLOADS, INBOX)):
        return f"{url} is elsewhere", f"use s3://{data.name}/{PAYLOADS}… or s3://{data.name}/{INBOX}…"
    try:
        size = data.head(key).size
        if size > FILE_BYTES:
            return f"{url} has {size:,} bytes", f"use at most {FILE_BYTES:,}"
        return data.read(key)
    except ObjectMissing:
        return f"{url} is not there", "upload the image first"
