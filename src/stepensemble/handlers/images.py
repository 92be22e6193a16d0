"""The pictures of a payload that lie in S3: read by Normalize alone, since a record keeps the pointer."""

from __future__ import annotations

from stepensemble.core.errors import ObjectMissing
from stepensemble.core.payload import Pointer
from stepensemble.storage.keys import INBOX, PAYLOADS
from stepensemble.storage.objects import Bucket

FILE_BYTES = 32 * 1024 * 1024
"""Most bytes of a picture's file; Normalize has 512 MB for everything."""


def fetch_image(data: Bucket, url: str) -> bytes | tuple[str, str]:
    """Read a picture's file from the data bucket's `payloads/` or `inbox/`; else say what is wrong with the pointer.

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
        return f"{url} is not there", "upload the picture first"
