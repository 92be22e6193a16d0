"""What is too large for a state lies in the data bucket, with a pointer in its place: left there, and fetched."""

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
    """Return a payload of at most so many bytes of JSON: its rows, or else a pointer to where they are written now.

    Args:
        data: the data bucket.
        payload: with `features` or `instances`; one with neither is returned as it is, and so is one with a pointer.
        most: bytes.

    Raises:
        PayloadTooLarge: what remains is more than an execution's input holds.
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
    """Put in the place of every pointer of an execution's output what it points at.

    Raises:
        ObjectMissing: that is not there any more.
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
