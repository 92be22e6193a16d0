"""Integrity: whether all of a file's data is there, which a decoder for the eye does not say.

Decoders fill what is lost with grey, or with noise, and report nothing. What can be found out depends on the format:

- PNG has a checksum for each chunk. Each is compared.
- JPEG has none. libjpeg warns where data ends before the picture does, goes on after it, or is no code; Pillow drops
  these warnings, simplejpeg raises them. It decodes an eighth of the size here, which reads all codes and costs little.
  What libjpeg does not warn of is that whole scans are missing, so their headers are read here.
- WebP has none either, and libwebp reports only that data ends too early. Its codes do not find their way back after
  damage: the decoder then needs more bytes than there are, or fewer. So the file is decoded once more without its last
  bytes: where the same picture comes out, they were not needed, and the data before them is damaged.

Damage that leaves valid codes, in number as before, cannot be found: a flipped bit of a JPEG most often is such damage.
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
"""What ends a scan: a marker that is neither an escaped byte, a restart, nor filling."""

LIBRARY_FUNCTION = re.compile(r"^\w+\(\): ")
"""How an error of libjpeg-turbo begins: with the function that found it."""

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""The markers of frames whose scans bring 64 coefficients a block: all that Pillow decodes, but lossless ones."""

COEFFICIENTS = 64

UNNEEDED = 8
"""More bytes than an intact WebP chunk has at its end without a need: libwebp leaves 4 at most, libvpx writes 4."""

PICTURE_CHUNKS = (b"VP8 ", b"VP8L", b"ALPH")
VP8_HEADER = 10


UNCHECKED = "Could not determine subsampling level"
"""What libjpeg-turbo says of a picture whose channels are sampled in a way that it has no name for, such as CMYK of
which Pillow halves the first channel only, or all but one."""


class CheckUnknown(Exception):
    """Whether a file is whole cannot be checked; the message says why."""


class DataLost(Exception):
    """Data of a file is missing or wrong; the message says what."""


def check_integrity(body: bytes, kind: str) -> None:
    """Check that a file is whole, as far as its format lets one see.

    Args:
        body: a file that Pillow can open.
        kind: its format, as Pillow calls it.

    Raises:
        DataLost: it is not.
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
        # "tjDecompress2(): Premature end of JPEG file": the function says nothing to who sent the file.
        raise DataLost(LIBRARY_FUNCTION.sub("", str(error))) from None
    if not _has_all_scans(body):
        raise DataLost("scans are missing")


def _has_all_scans(body: bytes) -> bool:
    """Say whether a JPEG's scans bring every coefficient of every component, to its last bit."""
    lacking: set[tuple[int, int]] = set()
    for marker, segment in _segments(body):
        if marker in FRAMES:  # precision, height, width, number of components, then three bytes for each
            lacking = set(product(segment[6::3], range(COEFFICIENTS)))
        elif marker == START_OF_SCAN:  # number of components, two bytes for each, first and last coefficient, bit
            components, (first, last, bit) = segment[1:-3:2], segment[-3:]
            # Only a progressive scan leaves bits to a later one; a sequential one says 0, 63, 0.
            if bit & 0x0F == 0:
                lacking -= set(product(components, range(first, last + 1)))
    return not lacking


def _segments(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the markers of a JPEG's first picture that have a segment, each with it."""
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
    for place, (name, data) in enumerate(chunks):
        if name not in PICTURE_CHUNKS or len(data) <= VP8_HEADER + UNNEEDED:
            continue
        shorter = _decode_webp(_join([*chunks[:place], (name, data[:-UNNEEDED]), *chunks[place + 1 :]]))
        if shorter is not None and shorter == _decode_webp(body):
            raise DataLost(f"the picture ends before its data does, in chunk {name.decode().strip()}")


def _decode_webp(body: bytes) -> bytes | None:
    """Return a digest of the picture, which is smaller than the picture; None if there is none."""
    try:
        with Image.open(io.BytesIO(body), formats=("WEBP",)) as image:
            return hashlib.blake2b(image.tobytes()).digest()
    except Exception:  # noqa: BLE001 - of damaged files Pillow raises whatever its parsers meet
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
