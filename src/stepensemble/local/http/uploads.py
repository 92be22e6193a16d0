"""Uploads to S3: what moto takes on trust, that a body is as long as it says and has the digests that it says."""

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

from stepensemble.local.http.messages import Environ, Refused, RequestHead

CHUNK = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,16})(;[^\r\n]*)?\r\n")
NUMBER = re.compile(r"[0-9]{1,19}")
LONGEST_LINE = 1024

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
STREAMING = "STREAMING-"

CHECKSUMS: Mapping[str, Callable[[memoryview], bytes]] = {
    "crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "sha1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    "sha256": lambda body: hashlib.sha256(body).digest(),
}
"""S3's checksums that the standard library has; CRC32C and CRC64NVME are not compared."""


def check_announcement(head: RequestHead) -> None:
    """Make sure that an object that is written says how long it is, as S3 wants it.

    One that is copied has no body, and needs to say nothing.

    Raises:
        Refused: 411.
    """
    if head.method != "PUT" or "x-amz-copy-source" in head.fields:
        return
    if not {"content-length", "transfer-encoding"} & head.fields.keys():
        raise Refused(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")


def check_chunks(fields: Mapping[str, str], body: memoryview) -> None:
    """Make sure that a body in chunks of AWS's own (aws-chunked) has all of them, and as many bytes as are announced.

    See https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html.

    Raises:
        Refused: 400 or 411.
    """
    if not fields.get("x-amz-content-sha256", "").startswith(STREAMING):
        return
    announced = fields.get("x-amz-decoded-content-length", "")
    if not NUMBER.fullmatch(announced):
        raise Refused(411, "MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
    found = measure_chunks(body)
    if int(announced) != found:
        came = "not all chunks" if found is None else f"{found:,} bytes"
        raise Refused(400, "IncompleteBody", f"{announced} bytes are announced, and {came} came; nothing was stored")


def check_digests(head: RequestHead, body: memoryview) -> None:
    """Make sure that a body has the digests that its head announces.

    The digests of a body in AWS's own chunks are of what is in them, or follow in a trailer; they are not compared.
    `x-amz-checksum-*` are the body's own in a PUT; in a POST that completes an upload of parts, they are the object's.

    Raises:
        Refused: 400; a digest is malformed, or another body's.
    """
    signed = head.fields.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if signed.startswith(STREAMING):
        return
    if signed != "UNSIGNED-PAYLOAD":
        if not HEX_DIGEST.fullmatch(signed):
            message = (
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, "
                "or a valid sha256 value."
            )
            raise Refused(400, "InvalidArgument", message)
        if signed != hashlib.sha256(body).hexdigest():
            message = "The provided 'x-amz-content-sha256' header does not match what was computed."
            raise Refused(400, "XAmzContentSHA256Mismatch", message)
    if (announced := head.fields.get("content-md5")) is not None:
        found = hashlib.md5(body, usedforsecurity=False).digest()
        if len(given := _read_base64(announced)) != len(found):
            raise Refused(400, "InvalidDigest", "The Content-MD5 you specified was invalid.")
        if given != found:
            message = "The Content-MD5 you specified did not match what we received."
            raise Refused(400, "BadDigest", message)
    if head.method != "PUT":
        return
    for name, compute in CHECKSUMS.items():
        header = f"x-amz-checksum-{name}"
        if (announced := head.fields.get(header)) is None:
            continue
        found = compute(body)
        if len(given := _read_base64(announced)) != len(found):
            raise Refused(400, "InvalidRequest", f"Value for {header} header is invalid.")
        if given != found:
            message = f"The {name.upper()} you specified did not match the calculated checksum."
            raise Refused(400, "BadDigest", message)


def _read_base64(text: str) -> bytes:
    """Return the bytes; none where it is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def measure_chunks(body: memoryview) -> int | None:
    """Return how many bytes a body in AWS's chunks holds; None where it does not go on to its last chunk."""
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


def keep_names(environ: Environ, head: RequestHead) -> None:
    """Hand moto the names of an object's metadata as they were sent, underscores included, which WSGI leaves out."""
    names = {
        environ_key_for_header(name): name for name, _ in head.headers if should_preserve_original_header_name(name)
    }
    for key, name in list(names.items()):
        if key in environ:  # the name with hyphens was sent as well
            del names[key]
        else:
            environ[key] = head.fields[name.lower()]
    environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = names
