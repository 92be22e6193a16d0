"""Receive: reads an object in the inbox. An image or JSON becomes an execution, a dataset a run of the batch."""

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

IMAGES = (".png", ".jpg", ".jpeg", ".webp")
JSON = ".json"
INPUT_BYTES = 4 * 1024
"""Rows of more bytes go as a pointer: Step Functions returns an execution's input beside its output."""

NAME_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Receiver:
    """Reads objects in the inbox."""

    current: CurrentRelease
    data: Bucket

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return what to start for an object: its `kind`, and the `object`.

        The kinds are `prediction` and `run`, with the execution's `input` and its `name`, which is derived from the
        version of the object so that it starts once; `refused`, with `failure`; and `nothing`, for a folder's marker.

        Args:
            event: with `object`, as in S3's event.

        Raises:
            StorageUnavailable: S3 failed; the state machine retries.
        """
        object_ = read_inbox_object(event["object"])
        received = {"object": msgspec.to_builtins(object_)}
        if object_.key.endswith("/"):
            return {**received, "kind": "nothing"}
        name = "inbox-" + digest_of(f"{object_.key}\n{object_.version}".encode())[:NAME_DIGITS]
        try:
            kind, input_ = self._read_input(object_)
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return {**received, "kind": "refused", **refuse(error)}
        return {**received, "kind": kind, "name": name, "input": input_}

    def _read_input(self, object_: InboxObject) -> tuple[str, dict[str, Any]]:
        """Return the kind of execution and its input."""
        if to_portable_key(object_.key) != object_.key:
            raise InboxObjectRefused(
                f"{show(object_.key)} is a key with control characters, or with a part that is empty or only dots; "
                "upload it under another key"
            )
        if not object_.size:
            raise InboxObjectRefused(f"{object_.key} is empty; upload it again")
        if kind_of(object_.key) is not None:
            dataset = {"dataset": self.data.pointer(object_.key).s3}
            return "run", dataset if object_.version_id is None else dataset | {"version_id": object_.version_id}
        name = object_.key.lower()
        if object_.size > FILE_BYTES:
            remedy = f"use at most {FILE_BYTES:,}, or one of *{', *'.join(KINDS)}"
            raise InboxObjectRefused(f"{object_.key} has {object_.size:,} bytes; {remedy}")
        body = self._read(object_)
        if name.endswith(JSON):
            return "prediction", self._read_payload(object_, body)
        if sniff_image(body):
            return "prediction", self._read_image(object_, body)
        if name.endswith(IMAGES):
            raise InboxObjectRefused(
                f"{object_.key} does not start like a PNG, JPEG or WebP; upload the unmodified image"
            )
        known = enumerate_values([JSON, *IMAGES, *KINDS], most=99)
        raise InboxObjectRefused(f"{object_.key} is of no known kind; end its name with one of {known}")

    def _read(self, object_: InboxObject) -> bytes:
        try:
            return self.data.read_version(object_.key, object_.version_id)
        except ObjectMissing:
            raise InboxObjectRefused(f"{object_.key} was removed before it was read; upload it again") from None

    def _read_payload(self, object_: InboxObject, body: bytes) -> dict[str, Any]:
        try:
            payload = read_json(body)
        except ValueError as error:
            reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else error
            raise InboxObjectRefused(f"{object_.key} is not JSON: {reason}; write a payload of an execution") from None
        parse_payload(payload)
        input_ = {name: value for name, value in payload.items() if name not in ROWS}
        if len(msgspec.json.encode(input_)) <= INPUT_BYTES:
            input_ = dict(store_rows(self.data, payload, INPUT_BYTES))
        size = len(msgspec.json.encode(input_))
        if size > INPUT_BYTES:
            raise InboxObjectRefused(
                f"{object_.key} has {size:,} bytes of JSON without its rows; shorten its metadata until there are at "
                f"most {INPUT_BYTES:,}"
            )
        return input_

    def _read_image(self, object_: InboxObject, body: bytes) -> dict[str, Any]:
        release = self.current.get("", None).release
        match release.features:
            case (ImageFeature(name=name),):
                # A copy under its digest: the object may be replaced, and the record has to name what was predicted.
                pointer = self.data.write(image_key(body), body)
                return {"features": {name: msgspec.to_builtins(pointer)}}
        names = enumerate_values(feature.name for feature in release.features)
        raise InboxObjectRefused(f"{object_.key} is an image, and the ensemble needs {names}; send a payload as JSON")
