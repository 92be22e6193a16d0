"""Integrity: checks that an image file is complete, which decoders do not report.

Decoders replace lost data with grey or noise, and raise no error. What can be checked depends on the format:

- PNG has a checksum for each chunk, and every checksum is compared.
- JPEG has no checksum. libjpeg warns if data ends before the image does, continues after it, or has an invalid code;
  Pillow drops these warnings, simplejpeg raises them. It decodes to an eighth of the size here, which reads all codes
  and is fast. libjpeg does not warn if whole scans are missing, so the scans' headers are read here.
- WebP has no checksum either, and libwebp only reports that data ends too early. Its decoder cannot resynchronize after
  damage, and then needs more bytes than there are, or fewer. So the file is decoded again without its last bytes: if
  the image is the same, they were not needed, and the data before them is damaged.

Damage that leaves the same number of valid codes is not detected; most flipped bits of a JPEG are such damage.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from itertools import product

import simplejpeg
from PIL import Image

NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The end of a scan: a marker that is neither an escaped byte, a restart, nor padding."""

LIBRARY_FUNCTION = re.compile(r"^\w+\(\): ")
"""The beginning of an error of libjpeg-turbo: the function that found it."""

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""The markers of frames with 64 coefficients a block: all that Pillow decodes, except lossless ones."""

COEFFICIENTS = 64

UNNEEDED = 8
"""More bytes than an intact WebP chunk has unused at its end: libwebp leaves at most 4, libvpx writes 4."""

IMAGE_CHUNKS = (b"VP8 ", b"VP8L", b"ALPH")
VP8_HEADER = 10


UNCHECKED = "Could not determine subsampling level"
"""libjpeg-turbo's error for an image whose channel subsampling has no name there, such as CMYK of which Pillow halves
only the first channel, or all except one."""


class CheckUnknown(Exception):
    """A file's integrity cannot be checked; the message has the reason."""


class DataLost(Exception):
    """Data of a file is missing or wrong; the message describes it."""


def check_integrity(body: bytes, kind: str) -> None:
    """Check that a file is complete, as far as its format allows.

    Args:
        body: a file that Pillow can open.
        kind: its format, by Pillow's name.

    Raises:
        DataLost: it is incomplete or damaged.
        CheckUnknown: it cannot be checked.
    """
    if kind == "PNG":
        with Image.open(io.BytesIO(body), formats=("PNG",)) as image:
            image.verify()
    elif kind == "WEBP":
        _check_webp(body)
    else:
        _check_jpeg(body)


def _check_jpeg(body: bytes) -> None:
    try:
        simplejpeg.decode_jpeg(body, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        if UNCHECKED in str(error):
            raise CheckUnknown("samples its channels in a way that cannot be checked for damage") from None
        # "tjDecompress2(): Premature end of JPEG file": the function's name does not help the caller.
        raise DataLost(LIBRARY_FUNCTION.sub("", str(error))) from None
    if not _has_all_scans(body):
        raise DataLost("scans are missing")


def _has_all_scans(body: bytes) -> bool:
    """Return whether a JPEG's scans contain every coefficient of every component, to its last bit."""
    missing: set[tuple[int, int]] = set()
    for marker, segment in _segments(body):
        if marker in FRAMES:  # precision, height, width, number of components, then three bytes for each
            missing = set(product(segment[6::3], range(COEFFICIENTS)))
        elif marker == START_OF_SCAN:  # number of components, two bytes for each, first and last coefficient, bit
            components, (first, last, bit) = segment[1:-3:2], segment[-3:]
            # Only a progressive scan leaves bits to a later one; a sequential one has 0, 63, 0.
            if bit & 0x0F == 0:
                missing -= set(product(components, range(first, last + 1)))
    return not missing


def _segments(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the markers of a JPEG's first image that have a segment, each with its segment."""
    at = 2
    while (found := NEXT_MARKER.search(body, at)) is not None:
        marker = body[found.start() + 1]
        if marker == END_OF_IMAGE:
            return
        start, length = found.end() + 2, int.from_bytes(body[found.end() : found.end() + 2])
        at = found.end() + length
        yield marker, body[start:at]


def _check_webp(body: bytes) -> None:
    chunks = list(_chunks(body))
    for index, (name, data) in enumerate(chunks):
        if name not in IMAGE_CHUNKS or len(data) <= VP8_HEADER + UNNEEDED:
            continue
        shorter = _decode_webp(_join([*chunks[:index], (name, data[:-UNNEEDED]), *chunks[index + 1 :]]))
        if shorter is not None and shorter == _decode_webp(body):
            raise DataLost(f"the image ends before its data does, in chunk {name.decode().strip()}")


def _decode_webp(body: bytes) -> bytes | None:
    """Return a digest of the image, to save memory; None if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(body), formats=("WEBP",)) as image:
            return hashlib.blake2b(image.tobytes()).digest()
    except Exception:  # noqa: BLE001 - Pillow may raise anything for a damaged file
        return None


def _chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(body):
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        yield body[at : at + 4], body[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _join(chunks: list[tuple[bytes, bytes]]) -> bytes:
    joined = b"WEBP" + b"".join(
        name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + len(joined).to_bytes(4, "little") + joined
