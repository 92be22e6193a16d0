"""Damage at random positions: a file is rejected, or has the intact file's samples, as far as formats allow."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stepensemble.core.schema.manifest import ImageFeature
from stepensemble.imaging.decoding import ImageRefused, decode_image
from stepensemble.imaging.integrity import check_integrity

HEIGHT, WIDTH = 240, 320
FEATURE = ImageFeature("x", (HEIGHT, WIDTH))
PLACES = 25
END_OF_JPEG = b"\xff\xd9"


@cache
def photograph() -> Image.Image:
    """An image like a camera's: smooth, and with noise."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([90 * np.sin(columns / 40), 80 * np.cos((rows + columns) / 55), 70 * np.sin(rows / 33)], axis=-1)
    noisy = 128 + smooth + np.random.default_rng(0).normal(0, 8, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@cache
def veiled() -> Image.Image:
    image = photograph().copy()
    image.putalpha(photograph().getchannel("G"))
    return image


def save(image: Image.Image, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


JPEGS = {
    "baseline": lambda: save(photograph(), "JPEG", quality=85),
    "progressive": lambda: save(photograph(), "JPEG", quality=85, progressive=True),
    "grey": lambda: save(photograph().convert("L"), "JPEG", quality=85),
    "with restarts": lambda: save(photograph(), "JPEG", quality=85, restart_marker_blocks=20),
    "of four inks": lambda: save(photograph().convert("CMYK"), "JPEG", quality=85),
}
WEBPS = {
    "lossy": lambda: save(photograph(), "WEBP", quality=80),
    "lossless": lambda: save(photograph(), "WEBP", lossless=True),
    "transparent": lambda: save(veiled(), "WEBP", quality=80),
}
PNGS = {
    "compressed": lambda: save(photograph(), "PNG"),
    "stored": lambda: save(photograph(), "PNG", compress_level=0),
}


def scan_of(body: bytes) -> tuple[int, int]:
    """Where a JPEG's coded data begins and ends."""
    return body.index(b"\xff\xda") + 14, len(body) - len(END_OF_JPEG)


def chunk_of(body: bytes, name: bytes) -> tuple[int, int]:
    """Return the start of a WebP chunk's data, after the image's size, and its end."""
    start = body.index(name) + 8
    return start + 20, start + int.from_bytes(body[start - 4 : start], "little")


@pytest.mark.parametrize("subsampling", ["4:2:2", "4:2:0"])
def test_an_image_that_cannot_be_checked_is_rejected_with_a_remedy_that_works(subsampling: str) -> None:
    image = photograph().convert("CMYK")
    with pytest.raises(ImageRefused) as caught:
        decode_image(save(image, "JPEG", subsampling=subsampling), FEATURE)
    assert caught.value.reason == (
        "samples its channels in a way that cannot be checked for damage",
        "convert it to RGB and save it as PNG",
    )
    decode_image(save(image.convert("RGB"), "PNG"), FEATURE)


def test_an_error_names_no_function_of_a_library() -> None:
    with pytest.raises(ImageRefused) as caught:
        decode_image(JPEGS["baseline"]()[:-2000], FEATURE)
    assert "()" not in str(caught.value)


Damage = Callable[[bytes, int, int, random.Random], bytes]
"""Damages a file somewhere between two places."""


def cut_off(body: bytes, start: int, end: int, chance: random.Random) -> bytes:
    return body[: chance.randrange(start, end - 8)]


def cut_off_and_ended(body: bytes, start: int, end: int, chance: random.Random) -> bytes:
    return cut_off(body, start, end, chance) + END_OF_JPEG


def filled_with_zeros(body: bytes, start: int, end: int, chance: random.Random) -> bytes:
    at = chance.randrange(start, end - 64)
    return body[:at] + bytes(end - at) + body[end:]


def hole(size: int) -> Damage:
    def damage(body: bytes, start: int, end: int, chance: random.Random) -> bytes:
        at = chance.randrange(start, end - size)
        return body[:at] + bytes(size) + body[at + size :]

    return damage


def count_unnoticed(body: bytes, span: tuple[int, int], damage: Damage) -> int:
    """Return how often a damaged file is decoded to other samples than the intact one."""
    intact = decode_image(body, FEATURE)
    chance = random.Random(4)  # noqa: S311 - the same places in every run
    unnoticed = 0
    for _ in range(PLACES):
        with suppress(ImageRefused):
            unnoticed += not np.array_equal(decode_image(damage(body, *span, chance), FEATURE), intact)
    return unnoticed


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("damage", [cut_off, cut_off_and_ended, filled_with_zeros, hole(4096)])
def test_a_jpeg_that_has_lost_data_is_rejected(kind: str, damage: Damage) -> None:
    body = JPEGS[kind]()
    assert count_unnoticed(body, scan_of(body), damage) == 0


@pytest.mark.parametrize(("kind", "chunk"), [("lossy", b"VP8 "), ("lossless", b"VP8L"), ("transparent", b"ALPH")])
@pytest.mark.parametrize("damage", [cut_off, filled_with_zeros, hole(1024)])
def test_a_webp_that_has_lost_data_is_rejected(kind: str, chunk: bytes, damage: Damage) -> None:
    body = WEBPS[kind]()
    assert count_unnoticed(body, chunk_of(body, chunk), damage) == 0


@pytest.mark.parametrize("kind", PNGS)
@pytest.mark.parametrize("damage", [cut_off, filled_with_zeros, hole(64), hole(1)])
def test_a_png_is_rejected_for_any_damage(kind: str, damage: Damage) -> None:
    body = PNGS[kind]()
    assert count_unnoticed(body, (33, len(body) - 12), damage) == 0


@pytest.mark.parametrize(("kind", "most"), [("baseline", 2), ("progressive", 8)])
def test_most_small_holes_in_a_jpeg_are_detected(kind: str, most: int) -> None:
    # The decoder resynchronizes after it; with the same number of codes, nothing in the file shows the damage.
    body = JPEGS[kind]()
    assert count_unnoticed(body, scan_of(body), hole(512)) <= most


def test_a_progressive_jpeg_without_its_last_scans_is_rejected() -> None:
    body = JPEGS["progressive"]()
    scans = [at for at in range(len(body)) if body[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for at in scans[1:]:
        with pytest.raises(ImageRefused, match="scans are missing"):
            # What stands between two scans, tables of codes, is at the end of what is kept, and harmless.
            decode_image(body[:at] + END_OF_JPEG, FEATURE)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "with restarts"])
def test_data_after_a_jpegs_end_and_in_its_header_is_not_checked(kind: str) -> None:
    body = JPEGS[kind]()
    intact = decode_image(body, FEATURE)
    preview = save(photograph().resize((40, 30)), "JPEG", progressive=True)[:-100]
    comment = b"\xff\xfe" + (len(preview) + 2).to_bytes(2) + preview
    for more in (body + bytes(100), body + preview, body[:2] + comment + body[2:]):
        np.testing.assert_array_equal(decode_image(more, FEATURE), intact)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16), (90, 33)])
@pytest.mark.parametrize("flat", [False, True])
def test_intact_files_of_every_kind_pass(size: tuple[int, int], flat: bool) -> None:
    image = Image.new("RGB", size, (200, 30, 40)) if flat else photograph().resize(size)
    for more in ({"quality": 1}, {"quality": 100, "subsampling": 0}, {"optimize": True, "progressive": True}):
        check_integrity(save(image, "JPEG", **more), "JPEG")
        check_integrity(save(image.convert("CMYK"), "JPEG", **more), "JPEG")
    for alpha in (None, 128, 0):
        image.putalpha(alpha if alpha is not None else 255)
        for more in ({"quality": 1}, {"quality": 100}, {"lossless": True}, {"lossless": True, "exact": True}):
            check_integrity(save(image if alpha is not None else image.convert("RGB"), "WEBP", **more), "WEBP")
        for more in ({}, {"compress_level": 0}, {"bits": 8}):
            check_integrity(save(image, "PNG", **more), "PNG")


def test_an_encoders_bytes_after_a_webps_codes_are_no_damage() -> None:
    body = WEBPS["lossy"]()
    start, end = chunk_of(body, b"VP8 ")
    chunk = body[start - 20 : end] + bytes(4)  # as libvpx does
    webp = b"WEBPVP8 " + len(chunk).to_bytes(4, "little") + chunk
    padded = b"RIFF" + len(webp).to_bytes(4, "little") + webp
    np.testing.assert_array_equal(decode_image(padded, FEATURE), decode_image(body, FEATURE))
