"""Checks of uploads to S3 that moto does not do: that a body has the announced length and digests."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping

from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    environ_key_for_header,
    should_preserve_original_header_name,
)

from stepensemble.local.http.messages import Environ, RequestHead, RequestRejected

CHUNK = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,16})(;[^\r\n]*)?\r\n")
NUMBER = re.compile(r"[0-9]{1,19}")
LONGEST_LINE = 1024

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
STREAMING = "STREAMING-"
UNSIGNED = "UNSIGNED-PAYLOAD"

CHECKSUMS: Mapping[str, Callable[[memoryview], bytes]] = {
    "crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "sha1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    "sha256": lambda body: hashlib.sha256(body).digest(),
}
"""S3's checksums that the standard library can compute; CRC32C and CRC64NVME are not checked."""


def check_length(head: RequestHead) -> None:
    """Check that a request which writes an object announces its length, as S3 requires. A copy has no body.

    Raises:
        RequestRejected: 411.
    """
    if head.method != "PUT" or "x-amz-copy-source" in head.fields:
        return
    if not {"content-length", "transfer-encoding"} & head.fields.keys():
        raise RequestRejected(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")


def check_chunks(fields: Mapping[str, str], body: memoryview) -> None:
    """Check that a body in AWS's own chunks (aws-chunked) has all of them, and as many bytes as announced.

    See https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html.

    Raises:
        RequestRejected: 400 or 411.
    """
    if not fields.get("x-amz-content-sha256", "").startswith(STREAMING):
        return
    announced = fields.get("x-amz-decoded-content-length", "")
    if not NUMBER.fullmatch(announced):
        raise RequestRejected(
            411, "MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header."
        )
    size = measure_chunks(body)
    if int(announced) != size:
        received = "not all chunks" if size is None else f"{size:,} bytes"
        raise RequestRejected(
            400, "IncompleteBody", f"{announced} bytes were announced, and {received} received; nothing was stored"
        )


def check_digests(head: RequestHead, body: memoryview) -> None:
    """Check that a body has the digests that its head announces.

    The digests of a body in AWS's own chunks are those of the content, or follow in a trailer; they are not checked.
    `x-amz-checksum-*` are the body's own in a PUT; in a POST that completes an upload in parts, they are the object's,
    and are not checked either.

    Raises:
        RequestRejected: 400; a digest is malformed, or of another body.
    """
    signed = head.fields.get("x-amz-content-sha256", UNSIGNED)
    if signed.startswith(STREAMING):
        return
    if signed != UNSIGNED:
        _check_signed_digest(signed, body)
    if (announced := head.fields.get("content-md5")) is not None:
        _check_md5(announced, body)
    if head.method == "PUT":
        for name in CHECKSUMS:
            if (announced := head.fields.get(f"x-amz-checksum-{name}")) is not None:
                _check_checksum(name, announced, body)


def _check_signed_digest(signed: str, body: memoryview) -> None:
    if not HEX_DIGEST.fullmatch(signed):
        message = (
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, "
            "or a valid sha256 value."
        )
        raise RequestRejected(400, "InvalidArgument", message)
    if signed != hashlib.sha256(body).hexdigest():
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise RequestRejected(400, "XAmzContentSHA256Mismatch", message)


def _check_md5(announced: str, body: memoryview) -> None:
    computed = hashlib.md5(body, usedforsecurity=False).digest()
    if len(given := _read_base64(announced)) != len(computed):
        raise RequestRejected(400, "InvalidDigest", "The Content-MD5 you specified was invalid.")
    if given != computed:
        raise RequestRejected(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")


def _check_checksum(name: str, announced: str, body: memoryview) -> None:
    computed = CHECKSUMS[name](body)
    if len(given := _read_base64(announced)) != len(computed):
        raise RequestRejected(400, "InvalidRequest", f"Value for x-amz-checksum-{name} header is invalid.")
    if given != computed:
        message = f"The {name.upper()} you specified did not match the calculated checksum."
        raise RequestRejected(400, "BadDigest", message)


def _read_base64(text: str) -> bytes:
    """Return the bytes; none if the text is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def measure_chunks(body: memoryview) -> int | None:
    """Return how many bytes a body in AWS's chunks contains; None if its last chunk is missing."""
    place = total = 0
    while line := CHUNK.match(body[place : place + LONGEST_LINE]):
        size = int(line["size"], 16)
        place += line.end()
        if size == 0:
            # Trailers may follow, a line each, and an empty line ends them.
            rest = bytes(body[place:])
            return total if rest == b"\r\n" or rest.endswith(b"\r\n\r\n") else None
        if bytes(body[place + size : place + size + 2]) != b"\r\n":
            return None
        total, place = total + size, place + size + 2
    return None


def preserve_header_names(environ: Environ, head: RequestHead) -> None:
    """Give moto the names of an object's metadata as sent, also those with underscores, which WSGI leaves out."""
    names = {
        environ_key_for_header(name): name for name, _ in head.headers if should_preserve_original_header_name(name)
    }
    for key, name in list(names.items()):
        if key in environ:  # the name with hyphens was sent as well
            del names[key]
        else:
            environ[key] = head.fields[name.lower()]
    environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = names
