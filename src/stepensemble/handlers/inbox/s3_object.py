"""An object in the inbox, as S3's event describes it and as the inbox's state machine carries it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field


class InboxObject(Struct, frozen=True):
    """One version of an object in the inbox.

    Attributes:
        sequencer: hex digits that grow from one version of a key to the next, of any length.
        version_id: None if the bucket keeps no versions.
    """

    key: str
    size: int
    etag: str
    sequencer: str
    version_id: str | None = None

    @property
    def version(self) -> str:
        """Names this version: its version id, or its sequencer and ETag without one."""
        return self.version_id or f"{self.sequencer}-{self.etag}"

    def is_older(self, sequencer: str) -> bool:
        """Return whether this version is older than the one of a sequencer.

        The shorter sequencer is padded on its right, as AWS documents
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
        """
        length = max(len(sequencer), len(self.sequencer))
        return self.sequencer.ljust(length, "0") < sequencer.ljust(length, "0")


class _S3Object(Struct, frozen=True):
    key: str
    etag: str
    sequencer: str = "0"
    size: int = 0
    version_id: str | None = field(default=None, name="version-id")


def read_inbox_object(detail: Any) -> InboxObject:
    """Parse the `object` in the detail of S3's event `Object Created`.

    Raises:
        msgspec.ValidationError: it has another form.
    """
    found = msgspec.convert(detail, _S3Object)
    # Objects from before a bucket kept versions have the version "null".
    version_id = None if found.version_id == "null" else found.version_id
    return InboxObject(found.key, found.size, found.etag, found.sequencer, version_id)
