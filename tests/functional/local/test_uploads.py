"""Bodies in AWS's own chunks, whole and cut; expectations are S3's documentation's.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepensemble.local.http_messages import Refused, RequestHead
from stepensemble.local.uploads import check_announcement, check_chunks, measure_chunks

SIGNATURE = b";chunk-signature=" + b"a" * 64
TRAILER = b"x-amz-checksum-crc32c:sOO8/Q==\r\n"


def chunked(*chunks: bytes, signed: bool, trailer: bytes = b"") -> bytes:
    extension = SIGNATURE if signed else b""
    framed = [b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join(framed) + b"0" + extension + b"\r\n" + trailer + b"\r\n"


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    signed=st.booleans(),
    trailer=st.sampled_from([b"", TRAILER, TRAILER + b"x-amz-trailer-signature:" + b"b" * 64 + b"\r\n"]),
)
def test_a_whole_body_has_the_bytes_of_its_chunks_and_no_part_of_it_has_any(
    chunks: list[bytes], signed: bool, trailer: bytes
) -> None:
    body = chunked(*chunks, signed=signed, trailer=trailer)
    assert measure_chunks(memoryview(body)) == sum(map(len, chunks))
    for end in range(len(body)):
        assert measure_chunks(memoryview(body)[:end]) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"abc", b"-1\r\n", b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"3\nabc\n0\n\n"],
)
def test_what_is_no_chunks_has_no_length(body: bytes) -> None:
    assert measure_chunks(memoryview(body)) is None


@pytest.mark.parametrize(
    ("announced", "status"),
    [("5", None), ("05", None), ("4", 400), ("6", 400), ("99999999999999", 400), ("", 411), ("-5", 411), ("five", 411)],
)
def test_the_announced_length_must_be_that_of_the_chunks(announced: str, status: int | None) -> None:
    fields = {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "x-amz-decoded-content-length": announced}
    body = memoryview(chunked(b"abc", b"de", signed=True))
    if status is None:
        check_chunks(fields, body)
        return
    with pytest.raises(Refused) as refused:
        check_chunks(fields, body)
    assert refused.value.status == status


def test_a_body_that_is_not_in_chunks_is_not_looked_at() -> None:
    check_chunks({"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, memoryview(b"abc"))
    check_chunks({}, memoryview(b"abc"))


@pytest.mark.parametrize(
    ("method", "headers", "refused"),
    [
        ("PUT", {}, True),
        ("PUT", {"Content-Length": "0"}, False),
        ("PUT", {"Transfer-Encoding": "chunked"}, False),
        ("PUT", {"X-Amz-Copy-Source": "/bucket/key"}, False),
        ("GET", {}, False),
        ("DELETE", {}, False),
    ],
)
def test_an_object_that_is_written_says_how_long_it_is(method: str, headers: dict[str, str], refused: bool) -> None:
    head = RequestHead(method, "/bucket/key", (("Host", "localhost"), *headers.items()))
    with pytest.raises(Refused) if refused else nullcontext():
        check_announcement(head)
