"""The rows of a payload that lie in S3; read by Normalize to validate them and by Aggregate to record them."""

from __future__ import annotations

import msgspec

from stepensemble.core.errors import InvalidPayload, ObjectMissing
from stepensemble.core.payload import Pointer, Rows, check_instances
from stepensemble.core.problems import Problem
from stepensemble.storage.keys import PAYLOADS
from stepensemble.storage.objects import Bucket


def read_rows(data: Bucket, pointer: Pointer) -> Rows:
    """Read the rows a payload points at.

    Raises:
        InvalidPayload: the pointer leads elsewhere than into the data bucket's `payloads/`, to nothing, or to
            something that is no list of rows.
    """
    bucket, key = pointer.split()
    if bucket != data.name or not key.startswith(PAYLOADS):
        problem = Problem("$.instances.s3", f"{pointer.s3} is elsewhere", f"use s3://{data.name}/{PAYLOADS}…")
        raise InvalidPayload([problem])
    try:
        instances = msgspec.json.decode(data.read(key))
    except ObjectMissing:
        problem = Problem("$.instances.s3", f"{pointer.s3} is not there", "upload the rows first")
        raise InvalidPayload([problem]) from None
    except msgspec.DecodeError as error:
        problem = Problem("$.instances.s3", f"{pointer.s3} is not JSON: {error}", "upload a JSON list of rows")
        raise InvalidPayload([problem]) from None
    rows, problems = check_instances(instances)
    if problems:
        raise InvalidPayload(problems)
    return rows
