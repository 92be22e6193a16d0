"""Stores values that are too large for a state in the data bucket, and reads them by the pointers in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from stepensemble.core.aggregation.canonical import list_entries
from stepensemble.core.aggregation.output import Output, Prediction
from stepensemble.core.payload import ROWS, Pointer, check_frame
from stepensemble.core.preprocessing.columns import array_from_bytes
from stepensemble.core.state_size import FRAME_BYTES, INPUT_BYTES, STATE_BYTES
from stepensemble.storage.keys import payload_key
from stepensemble.storage.objects import Bucket


def store_rows(data: Bucket, payload: Mapping[str, Any], most: int = INPUT_BYTES) -> Mapping[str, Any]:
    """Return a payload of at most `most` bytes of JSON: if it is larger, store its rows and replace them by a pointer.

    Args:
        data: the data bucket.
        payload: with `features` or `instances`; one with neither, or with a pointer, is returned unchanged.
        most: bytes.

    Raises:
        PayloadTooLarge: without its rows, the payload is still too large for an execution's input.
    """
    known = ROWS & payload.keys()
    if len(msgspec.json.encode(payload)) <= most:
        return payload
    check_frame(payload, STATE_BYTES - FRAME_BYTES)
    if not known or isinstance(payload.get("instances"), Mapping):
        return payload
    rest = {key: value for key, value in payload.items() if key not in known}
    rows = msgspec.json.encode([payload["features"]] if "features" in payload else payload["instances"])
    pointer = data.write(payload_key(rows), rows)
    return {"instances": msgspec.to_builtins(pointer), **rest}


def follow_pointers(data: Bucket, output: Output) -> Output:
    """Replace every pointer in an execution's output by the object that it points to.

    Raises:
        ObjectMissing: an object does not exist any more.
    """
    predictions = output.predictions
    if isinstance(predictions, Pointer):
        predictions = msgspec.json.decode(data.read(predictions.split()[1]), type=list[Prediction])
    members = [
        structs.replace(member, outputs=list_entries(array_from_bytes(data.read(member.outputs.split()[1]))))
        if isinstance(member.outputs, Pointer)
        else member
        for member in output.members
    ]
    return structs.replace(output, predictions=predictions, members=members)
