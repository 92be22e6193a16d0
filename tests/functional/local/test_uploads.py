"""Complete and incomplete bodies in AWS's own chunks, and digests of bodies, as in S3's documentation.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepensemble.local.http.messages import RequestHead, RequestRejected
from stepensemble.local.http.uploads import check_chunks, check_digests, check_length, measure_chunks

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
def test_a_complete_body_has_the_size_of_its_chunks_and_a_part_of_it_has_none(
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
def test_a_body_that_is_not_in_chunks_has_no_size(body: bytes) -> None:
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
    with pytest.raises(RequestRejected) as rejected:
        check_chunks(fields, body)
    assert rejected.value.status == status


def test_a_body_that_is_not_in_chunks_is_not_measured() -> None:
    check_chunks({"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, memoryview(b"abc"))
    check_chunks({}, memoryview(b"abc"))


@pytest.mark.parametrize(
    ("method", "headers", "rejected"),
    [
        ("PUT", {}, True),
        ("PUT", {"Content-Length": "0"}, False),
        ("PUT", {"Transfer-Encoding": "chunked"}, False),
        ("PUT", {"X-Amz-Copy-Source": "/bucket/key"}, False),
        ("GET", {}, False),
        ("DELETE", {}, False),
    ],
)
def test_a_request_that_writes_an_object_announces_its_length(
    method: str, headers: dict[str, str], rejected: bool
) -> None:
    head = RequestHead(method, "/bucket/key", (("Host", "localhost"), *headers.items()))
    with pytest.raises(RequestRejected) if rejected else nullcontext():
        check_length(head)


ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""Digests of b"abc": FIPS 180-2, appendix B.1 and A.1; RFC 1321, A.5; CRC-32 352441c2."""

DIGESTS = {
    "x-amz-content-sha256": (ABC_SHA256, "XAmzContentSHA256Mismatch", "InvalidArgument"),
    "Content-MD5": ("kAFQmDzST7DWlj99KOF/cg==", "BadDigest", "InvalidDigest"),
    "x-amz-checksum-crc32": ("NSRBwg==", "BadDigest", "InvalidRequest"),
    "x-amz-checksum-sha1": ("qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "BadDigest", "InvalidRequest"),
    "x-amz-checksum-sha256": ("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", "BadDigest", "InvalidRequest"),
}
"""Each header's value for b"abc", the error for another body, and the error for a malformed digest."""


def put(headers: dict[str, str], method: str = "PUT") -> RequestHead:
    return RequestHead(method, "/bucket/key", (("Host", "localhost"), *headers.items()))


@pytest.mark.parametrize("header", DIGESTS)
def test_a_body_must_have_the_digests_that_are_announced(header: str) -> None:
    value, mismatch, malformed = DIGESTS[header]
    check_digests(put({header: value}), memoryview(b"abc"))
    for body in (b"", b"abd", b"abcabc"):
        with pytest.raises(RequestRejected) as rejected:
            check_digests(put({header: value}), memoryview(body))
        assert (rejected.value.status, rejected.value.code) == (400, mismatch)
    for wrong in ("", "abc", value[:-4], f"{value},{value}", "é"):
        with pytest.raises(RequestRejected) as rejected:
            check_digests(put({header: wrong}), memoryview(b"abc"))
        assert (rejected.value.status, rejected.value.code) == (400, malformed)


def test_digests_of_other_content_are_not_compared() -> None:
    check_digests(put({}), memoryview(b"abc"))
    check_digests(put({"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}), memoryview(b"abc"))
    check_digests(put({"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}), memoryview(b"abc"))
    # The request completes an upload in parts: the checksum is the object's.
    check_digests(put({"x-amz-checksum-crc32": "NSRBwg=="}, "POST"), memoryview(b"<CompleteMultipartUpload/>"))
