"""PNGs of every type and depth, written here sample by sample, compared with samples computed by NumPy."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

from stepensemble.core.schema.manifest import ImageFeature
from stepensemble.imaging.decoding import decode_image

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
EVERY = [(colour, depth) for colour, depths in DEPTHS.items() for depth in depths]
HEIGHT, WIDTH = 7, 9
QUARTER_TURN = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def write(samples: np.ndarray, colour: int, depth: int, *more: bytes) -> bytes:
    """A PNG without filters; `more` are chunks before the data."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        lines = [np.packbits(row).tobytes() for row in bits.reshape(height, -1)]
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, colour, 0, 0, 0])
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def draw(colour: int, depth: int) -> np.ndarray:
    samples = np.random.default_rng(depth).integers(0, 2**depth, (HEIGHT, WIDTH, CHANNELS[colour]))
    samples[2:4, 2:5] = samples[0, 0]
    samples[5, 5] = samples[0, 0] ^ 1  # of 16 bits, another colour in the lower byte alone
    return samples


def on_white(shades: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Samples of 8 bits under white, as three channels."""
    return np.broadcast_to(shades * alpha / 255 + 255 - alpha, (HEIGHT, WIDTH, 3))


def to_eight_bits(samples: np.ndarray, depth: int) -> np.ndarray:
    return samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)


def decode(body: bytes, **more: Any) -> np.ndarray:
    return decode_image(body, ImageFeature("x", (HEIGHT, WIDTH), **more)).astype(float)


def assert_same(decoded: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(decoded, expected, atol=0.51)  # a half is rounded to either side


@pytest.mark.parametrize(("colour", "depth"), [one for one in EVERY if one[0] != PALETTE])
def test_samples_of_every_depth(colour: int, depth: int) -> None:
    samples = draw(colour, depth)
    eight = to_eight_bits(samples, depth)
    shades, alpha = (eight[..., :-1], eight[..., -1:]) if colour in (GREY_ALPHA, RGB_ALPHA) else (eight, np.array(255))
    assert_same(decode(write(samples, colour, depth)), on_white(shades, alpha))


@pytest.mark.parametrize(("colour", "depth"), [one for one in EVERY if one[0] in (GREY, RGB)])
@pytest.mark.parametrize("place", [(0, 0), (1, 1), (4, 4)])
def test_the_transparent_colour_is_the_one_of_all_its_bits(colour: int, depth: int, place: tuple[int, int]) -> None:
    samples = draw(colour, depth)
    key = samples[place]
    alpha = np.where((samples == key).all(axis=-1, keepdims=True), 0, 255)
    body = write(samples, colour, depth, chunk(b"tRNS", key.astype(">u2").tobytes()))
    assert_same(decode(body), on_white(to_eight_bits(samples, depth), alpha))


def test_sixteen_bits_of_grey_that_are_transparent_are_white() -> None:
    samples = np.full((HEIGHT, WIDTH, 1), 40_000)  # whose upper byte is 156
    body = write(samples, GREY, 16, chunk(b"tRNS", (40_000).to_bytes(2)))
    assert set(decode(body, mode="L").ravel()) == {255}
    assert set(decode(write(samples, GREY, 16), mode="L").ravel()) == {156}


@pytest.mark.parametrize("depth", DEPTHS[PALETTE])
@pytest.mark.parametrize("alphas", [0, 1, None])
def test_a_palette_with_alphas_for_none_some_or_all_of_its_colours(depth: int, alphas: int | None) -> None:
    chance = np.random.default_rng(depth)
    palette = chance.integers(0, 256, (2**depth, 3))
    given = chance.integers(0, 256, 2**depth)[:alphas]
    alpha = np.concatenate([given, np.full(2**depth - len(given), 255)])
    more = [chunk(b"PLTE", palette.astype(np.uint8).tobytes())]
    if len(given):
        more.append(chunk(b"tRNS", given.astype(np.uint8).tobytes()))
    indexes = draw(PALETTE, depth)[..., 0]
    assert_same(
        decode(write(indexes[..., None], PALETTE, depth, *more)), on_white(palette[indexes], alpha[indexes][..., None])
    )


@pytest.mark.parametrize(("colour", "depth"), [(GREY, 4), (GREY, 16), (RGB, 8), (RGB, 16)])
def test_a_transparent_colour_is_rotated_with_the_image(colour: int, depth: int) -> None:
    samples = draw(colour, depth)
    key = chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes())
    feature = ImageFeature("x", (WIDTH, HEIGHT))
    turned = decode_image(write(samples, colour, depth, key, chunk(b"eXIf", QUARTER_TURN)), feature)
    upright = decode_image(write(samples, colour, depth, key), ImageFeature("x", (HEIGHT, WIDTH)))
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize("kind", [b"gAMA", b"sRGB", b"cHRM"])
def test_a_files_colour_metadata_is_not_applied(kind: bytes) -> None:
    data = {b"gAMA": (100_000).to_bytes(4), b"sRGB": b"\0", b"cHRM": bytes([0, 0, 122, 38] * 8)}[kind]
    samples = draw(RGB, 8)
    np.testing.assert_array_equal(decode(write(samples, RGB, 8, chunk(kind, data))), samples)
