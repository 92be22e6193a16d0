"""Normalize: accept a payload, pin the release, encode the features, name the members to ask first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from msgspec import structs

from stepensemble.core.columns import columns_to_bytes, columns_to_json, least_json_bytes
from stepensemble.core.errors import EnsembleError, InvalidPayload, StorageUnavailable
from stepensemble.core.features import normalize
from stepensemble.core.limits import POINTER_BYTES, STATE_BYTES, room_for_input, travels_inline
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
from stepensemble.core.problems import Problem
from stepensemble.core.releases.current import choose, serves
from stepensemble.core.releases.release import Current, Release
from stepensemble.handlers.images import fetch_image
from stepensemble.handlers.refusal import refuse
from stepensemble.handlers.rows import read_rows
from stepensemble.handlers.tiers import Frame, ask_tier, list_members
from stepensemble.handlers.warming import Serving, list_slots
from stepensemble.imaging import image_reader
from stepensemble.storage.keys import PAYLOADS, columns_key, execution_prefix, outputs_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.releases import ReleaseStore

POINTER_SECONDS = 3.0
"""How long a warm environment may go on with the pointer it has read; a publish is live everywhere after that."""


@dataclass(slots=True)
class CurrentRelease:
    """The current release, cached: releases for good, since they never change, the pointer for `POINTER_SECONDS`."""

    releases: ReleaseStore
    clock: Callable[[], float]
    _pointer: Current | None = None
    _read_at: float = 0.0
    _known: dict[str, Release] = field(default_factory=dict)

    def get(self, prediction_id: str, asked: str | None) -> tuple[str, Mapping[str, str], Release]:
        """Return the release that answers an execution: its digest, its placement, and itself.

        Args:
            prediction_id: of the execution; it decides between the current release and a canary.
            asked: digest, or the beginning of one, of the release that must answer; a cached pointer that does not
                serve it is read anew, so that who has just published sees what was published.

        Raises:
            NothingPublished: there is none.
            ReleaseNotCurrent: the release asked for is neither the current one nor the canary.
        """
        pointer = self.read_pointer(asked)
        digest, slots = choose(pointer, prediction_id, asked)
        if digest not in self._known:
            kept = {known: release for known, release in self._known.items() if serves(pointer, known)}
            self._known = {**kept, digest: self.releases.read_release(digest)}
        return digest, slots, self._known[digest]

    def list_served(self) -> list[tuple[str, Mapping[str, str], Release]]:
        """Return the current release, and the canary if there is one, each as `get` does; the pointer is read anew.

        Raises:
            NothingPublished: there is none.
        """
        self._pointer = None
        pointer = self.read_pointer()
        served = [pointer.release] if pointer.canary is None else [pointer.release, pointer.canary.release]
        return [self.get("", digest) for digest in served]

    def read_pointer(self, asked: str | None = None) -> Current:
        """Return the pointer; one that is cached only where it serves the release that is asked for.

        Raises:
            NothingPublished: there is none.
        """
        pointer = self._pointer
        stale = pointer is None or self.clock() - self._read_at >= POINTER_SECONDS
        if pointer is None or stale or not serves(pointer, asked or ""):
            pointer, _ = self.releases.read_current()
            self._pointer, self._read_at = pointer, self.clock()
        return pointer

    def forget_pointer(self) -> None:
        """Have the pointer read anew the next time."""
        self._pointer = None


@dataclass(frozen=True, slots=True)
class Normalizer:
    """What Normalize works on."""

    current: CurrentRelease
    data: Bucket
    function_prefix: str

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer the columns and the members of the first tier, or a refusal; of a warm-up, every slot's members.

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
        # Of a photograph the text would be written only to be found too long.
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
        return ask_tier(frame, 1, members, rows=len(rows), columns=carried, all_columns=carried)

    def _list_slots(self) -> dict[str, Any]:
        served = self.current.list_served()
        digests = [digest for digest, _, _ in served]
        answering = Serving(digests[0], digests[1] if len(digests) > 1 else None)
        state = {WARMUP: answering, "slots": list_slots(served, self.function_prefix)}
        return dict(msgspec.to_builtins(state))

    def _rows(self, payload: Payload) -> Rows:
        if not isinstance(payload.rows, Pointer):
            return payload.rows
        return read_rows(self.data, payload.rows)
