"""Normalize: validate a payload, choose the release, encode the features, list the first tier's members."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from msgspec import structs

from stepensemble.core.errors import EnsembleError, InvalidPayload, StorageUnavailable
from stepensemble.core.payload import (
    WARMUP,
    Payload,
    Pointer,
    Rows,
    apply_quorum,
    check_frame,
    is_warmup,
    parse_payload,
)
from stepensemble.core.preprocessing.columns import columns_to_bytes, columns_to_json, least_json_bytes
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.problems import Problem
from stepensemble.core.state_size import POINTER_BYTES, STATE_BYTES, room_for_input, travels_inline
from stepensemble.handlers.current_release import CurrentRelease
from stepensemble.handlers.failures import refuse
from stepensemble.handlers.prediction.payload_objects import fetch_image, read_rows
from stepensemble.handlers.prediction.warmup import Serving, list_slots
from stepensemble.handlers.state import Frame, TierColumns, list_members, prepare_tier
from stepensemble.imaging import image_reader
from stepensemble.storage.keys import PAYLOADS, columns_key, execution_prefix, outputs_key
from stepensemble.storage.objects import Bucket


@dataclass(frozen=True, slots=True)
class Normalizer:
    """Implements Normalize."""

    current: CurrentRelease
    data: Bucket
    function_prefix: str

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the first tier's columns and members, or a failure as data; for a warm-up, every slot's members.

        Args:
            event: `payload`, and `execution` with `id` and `name`.

        Raises:
            StorageUnavailable: S3 fails; the state machine tries again.
        """
        try:
            return self._normalize(event["payload"], event["execution"])
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return refuse(error)

    def _normalize(self, data: Any, execution: dict[str, str]) -> dict[str, Any]:
        if is_warmup(data):
            return self._list_slots()
        payload = parse_payload(data)
        prediction_id = payload.prediction_id or execution["name"]
        digest, slots, release = self.current.get(prediction_id, payload.release)
        members = list_members(release, slots, self.function_prefix)
        members_bytes = {
            tier: len(msgspec.json.encode([member for member in members if member.tier == tier]))
            for tier in range(1, release.tiers + 1)
        }
        input_bytes = len(msgspec.json.encode(data))
        room = room_for_input(sum(members_bytes.values()) - members_bytes[1], len(members))
        if input_bytes > room:
            check_frame(data, room - POINTER_BYTES)
            message = f"has {input_bytes:,} bytes of JSON, too many for a state beside the members' results"
            remedy = f'put the rows into s3://{self.data.name}/{PAYLOADS}… and send {{"instances": {{"s3": …}}}}'
            raise InvalidPayload([Problem("$", message, remedy)])
        policy = apply_quorum(payload, release.policy, release.members)
        rows = self._rows(payload)
        images = image_reader(partial(fetch_image, self.data))
        columns = normalize(release.features, rows, locate=payload.locate, images=images)
        # Not even written where it is sure to be too long, as for a photograph.
        carried = columns_to_json(columns) if least_json_bytes(columns) <= STATE_BYTES else {}
        inline = bool(carried) and travels_inline(
            release,
            policy,
            input_bytes=input_bytes,
            columns_bytes=len(msgspec.json.encode(carried)),
            members_bytes=members_bytes,
            rows=len(rows),
        )
        if not inline:
            prefix = execution_prefix(execution["name"], execution["id"])
            carried = msgspec.to_builtins(self.data.write(columns_key(prefix), columns_to_bytes(columns)))
            members = [structs.replace(member, outputs_key=outputs_key(prefix, member.id)) for member in members]
        frame = Frame(prediction_id, digest, inline)
        return prepare_tier(frame, 1, members, TierColumns(len(rows), carried, carried))

    def _list_slots(self) -> dict[str, Any]:
        served = self.current.list_served()
        digests = [digest for digest, _, _ in served]
        serving = Serving(digests[0], digests[1] if len(digests) > 1 else None)
        state = {WARMUP: serving, "slots": list_slots(served, self.function_prefix)}
        return dict(msgspec.to_builtins(state))

    def _rows(self, payload: Payload) -> Rows:
        if not isinstance(payload.rows, Pointer):
            return payload.rows
        return read_rows(self.data, payload.rows)
