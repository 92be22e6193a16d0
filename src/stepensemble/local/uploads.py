"""Uploads to S3: what moto takes on trust, that a body is as long as it says."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    environ_key_for_header,
    should_preserve_original_header_name,
)

from stepensemble.local.http_messages import Environ, Refused, RequestHead

CHUNK = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,16})(;[^\r\n]*)?\r\n")
NUMBER = re.compile(r"[0-9]{1,19}")
LONGEST_LINE = 1024


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
    if not fields.get("x-amz-content-sha256", "").startswith("STREAMING-"):
        return
    announced = fields.get("x-amz-decoded-content-length", "")
    if not NUMBER.fullmatch(announced):
        raise Refused(411, "MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
    found = measure_chunks(body)
    if int(announced) != found:
        came = "not all chunks" if found is None else f"{found:,} bytes"
        raise Refused(400, "IncompleteBody", f"{announced} bytes are announced, and {came} came; nothing was stored")


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
