"""Receive: what an object in the inbox asks. A picture or JSON is a prediction, a dataset a run of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from stepensemble.batch.documents import KINDS, kind_of
from stepensemble.core.errors import EnsembleError, InboxObjectRefused, ObjectMissing, StorageUnavailable
from stepensemble.core.payload import ROWS, parse_payload
from stepensemble.core.problems import enumerate_values, show
from stepensemble.core.releases.release import digest_of
from stepensemble.core.schema.manifest import ImageFeature
from stepensemble.core.strict_json import read_json
from stepensemble.handlers.current_release import CurrentRelease
from stepensemble.handlers.failures import refuse
from stepensemble.handlers.inbox.s3_object import InboxObject, read_inbox_object
from stepensemble.handlers.prediction.payload_objects import FILE_BYTES
from stepensemble.imaging import sniff_image
from stepensemble.storage.keys import image_key, to_portable_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.payload_pointers import store_rows

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
JSON = ".json"
ASKED_BYTES = 4 * 1024
"""Rows of more bytes travel as a pointer: beside an execution's output, Step Functions hands back its input."""

NAME_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Receiver:
    """What Receive works on."""

    current: CurrentRelease
    data: Bucket

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer what is to be started, as `kind`, and of which `object`.

        The kind is one of: `prediction` and `run`, with the execution's `name`, which names the version of the object,
        so that it is started once, and its `input`; `refused`, with `failure`; `nothing`, for the marker of a folder.

        Args:
            event: `object`, as S3's event has it.

        Raises:
            StorageUnavailable: S3 fails; the state machine tries again.
        """
        arrival = read_inbox_object(event["object"])
        told = {"object": msgspec.to_builtins(arrival)}
        if arrival.key.endswith("/"):
            return {**told, "kind": "nothing"}
        name = "inbox-" + digest_of(f"{arrival.key}\n{arrival.version}".encode())[:NAME_DIGITS]
        try:
            kind, asked = self._ask(arrival)
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return {**told, "kind": "refused", **refuse(error)}
        return {**told, "kind": kind, "name": name, "input": asked}

    def _ask(self, arrival: InboxObject) -> tuple[str, dict[str, Any]]:
        """Return the kind of execution and its input."""
        if to_portable_key(arrival.key) != arrival.key:
            raise InboxObjectRefused(
                f"{show(arrival.key)} is a key with control characters, or with a part that is empty or nothing but "
                "dots; upload it under another"
            )
        if not arrival.size:
            raise InboxObjectRefused(f"{arrival.key} is empty; upload it again")
        if kind_of(arrival.key) is not None:
            dataset = {"dataset": self.data.pointer(arrival.key).s3}
            return "run", dataset if arrival.version_id is None else dataset | {"version_id": arrival.version_id}
        name = arrival.key.lower()
        if arrival.size > FILE_BYTES:
            remedy = f"use at most {FILE_BYTES:,}, or one of *{', *'.join(KINDS)}"
            raise InboxObjectRefused(f"{arrival.key} has {arrival.size:,} bytes; {remedy}")
        body = self._read(arrival)
        if name.endswith(JSON):
            return "prediction", self._read_payload(arrival, body)
        if sniff_image(body):
            return "prediction", self._ask_picture(arrival, body)
        if name.endswith(PICTURES):
            raise InboxObjectRefused(
                f"{arrival.key} does not begin as a PNG, JPEG or WebP does; upload the picture as it is"
            )
        known = enumerate_values([JSON, *PICTURES, *KINDS], most=99)
        raise InboxObjectRefused(f"{arrival.key} is of no known kind; let its name end with one of {known}")

    def _read(self, arrival: InboxObject) -> bytes:
        try:
            return self.data.read_version(arrival.key, arrival.version_id)
        except ObjectMissing:
            raise InboxObjectRefused(f"{arrival.key} was removed before it was read; upload it again") from None

    def _read_payload(self, arrival: InboxObject, body: bytes) -> dict[str, Any]:
        try:
            payload = read_json(body)
        except ValueError as error:
            reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else error
            raise InboxObjectRefused(f"{arrival.key} is not JSON: {reason}; write a payload of an execution") from None
        parse_payload(payload)
        asked = {name: value for name, value in payload.items() if name not in ROWS}
        if len(msgspec.json.encode(asked)) <= ASKED_BYTES:
            asked = dict(store_rows(self.data, payload, ASKED_BYTES))
        size = len(msgspec.json.encode(asked))
        if size > ASKED_BYTES:
            raise InboxObjectRefused(
                f"{arrival.key} has {size:,} bytes of JSON without its rows; shorten its metadata until there are at "
                f"most {ASKED_BYTES:,}"
            )
        return asked

    def _ask_picture(self, arrival: InboxObject, body: bytes) -> dict[str, Any]:
        _, _, release = self.current.get("", None)
        match release.features:
            case (ImageFeature(name=name),):
                # A copy under its digest: what lies in the inbox may be replaced, and the record names what was seen.
                pointer = self.data.write(image_key(body), body)
                return {"features": {name: msgspec.to_builtins(pointer)}}
        asked = enumerate_values(feature.name for feature in release.features)
        raise InboxObjectRefused(
            f"{arrival.key} is a picture, and the ensemble asks for {asked}; send a payload as JSON"
        )
