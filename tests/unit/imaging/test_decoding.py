"""Images are decoded like by Pillow, checked by hand where possible, and rejected if they cannot be trusted."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from stepensemble.core.schema.manifest import ImageFeature
from stepensemble.imaging import image_reader, read_images, sniff_image
from stepensemble.imaging.decoding import ImageRefused, decode_image, encode_png

GREY = ImageFeature("image", (2, 2), mode="L")
COLOUR = ImageFeature("image", (2, 2))


def save(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def png(samples: Any, **more: Any) -> bytes:
    return save(Image.fromarray(np.asarray(samples, np.uint8)), **more)


def noise(height: int, width: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, *channels)).astype(np.uint8)


def photograph() -> np.ndarray:
    """A smooth image, which suits JPEG: 32 by 48 pixels."""
    rows, columns = np.mgrid[0:32, 0:48]
    return np.stack([rows * 8, columns * 5, (rows + columns) * 3], axis=-1).clip(0, 255).astype(np.uint8)


def refusal(body: bytes, feature: ImageFeature = GREY) -> str:
    with pytest.raises(ImageRefused) as rejected:
        decode_image(body, feature)
    return str(rejected.value)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))))
def test_a_png_of_the_right_size_is_its_samples(samples: np.ndarray) -> None:
    height, width, channels = samples.shape
    feature = ImageFeature("image", (height, width), mode="L" if channels == 1 else "RGB")
    np.testing.assert_array_equal(decode_image(encode_png(samples), feature), samples)


def test_a_drawn_png_is_the_same_bytes_everywhere() -> None:
    body = encode_png(noise(2, 2, 1))
    # zlib's header for "not compressed", then a block that is stored: what zlib's versions differ in does not come up.
    assert body[body.index(b"IDAT") + 4 :][:3] == b"\x78\x01\x01"


def test_colour_becomes_lightness_by_the_weights_of_itu_r_601() -> None:
    pixels = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]]
    expected = [[0.299 * 255, 0.587 * 255], [0.114 * 255, 0.299 * 10 + 0.587 * 20 + 0.114 * 30]]
    assert decode_image(png(pixels), GREY)[..., 0].tolist() == np.round(expected).astype(int).tolist()


def test_grey_becomes_three_equal_channels() -> None:
    assert decode_image(png([[1, 2], [3, 4]]), COLOUR).tolist() == [[[1] * 3, [2] * 3], [[3] * 3, [4] * 3]]


def test_transparent_pixels_are_blended_with_white() -> None:
    clear, half, solid = [0, 0, 0, 0], [0, 0, 0, 128], [0, 0, 0, 255]
    # Half of it shines through: 255 (1 - 128/255) = 127.
    assert decode_image(png([[clear, half], [solid, solid]]), GREY)[..., 0].tolist() == [[255, 127], [0, 0]]


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decode_image(save(image), COLOUR).tolist() == [[[9, 8, 7], [200, 100, 50]], [[9, 8, 7], [9, 8, 7]]]


def test_sixteen_bits_are_scaled_to_eight() -> None:
    image = Image.fromarray(np.array([[0, 255], [32768, 65535]], np.uint16))
    assert decode_image(save(image), GREY)[..., 0].tolist() == [[0, 0], [128, 255]]


def test_two_colours_are_black_and_white() -> None:
    image = Image.new("1", (2, 2))
    image.putpixel((0, 0), 1)
    assert decode_image(save(image), GREY)[..., 0].tolist() == [[255, 0], [0, 0]]


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, [[1, 2], [3, 4]]),
        (2, [[2, 1], [4, 3]]),  # mirrored
        (3, [[4, 3], [2, 1]]),  # half a turn
        (4, [[3, 4], [1, 2]]),
        (5, [[1, 3], [2, 4]]),  # transposed
        (6, [[3, 1], [4, 2]]),  # a quarter to the right
        (7, [[4, 2], [3, 1]]),
        (8, [[2, 4], [1, 3]]),
    ],
)
def test_an_image_is_rotated_by_its_exif_orientation(orientation: int, turned: list[list[int]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    samples = [[1, 2], [3, 4]]
    assert decode_image(png(samples, exif=exif), GREY)[..., 0].tolist() == turned
    assert decode_image(png(samples, kind="WEBP", lossless=True, exif=exif), GREY)[..., 0].tolist() == turned
    grey = Image.fromarray(np.array(samples, np.uint8) * 60).resize((16, 16), Image.Resampling.NEAREST)
    jpeg = decode_image(save(grey, "JPEG", quality=100, exif=exif), ImageFeature("x", (16, 16), mode="L"))
    assert np.round(jpeg[4::8, 4::8, 0] / 60).astype(int).tolist() == turned


def test_broken_exif_does_not_crash() -> None:
    body = png([[1, 2], [3, 4]], exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    with suppress(ImageRefused):
        assert decode_image(body, GREY)[..., 0].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_formats_are_decoded_like_by_pillow(kind: str) -> None:
    body = save(Image.fromarray(photograph()), kind, quality=90)
    expected = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(body, ImageFeature("x", (32, 48))), expected)
    assert np.abs(expected.astype(int) - photograph()).mean() < 6


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_inks_of_a_jpeg_darken(adobe: bool) -> None:
    patches = np.kron([[[0, 0, 0, 0], [255, 40, 10, 0]], [[0, 200, 90, 128], [30, 0, 60, 250]]], np.ones((8, 8, 1)))
    body = save(Image.fromarray(patches.astype(np.uint8), "CMYK"), "JPEG", quality=100, subsampling=0)
    if not adobe:  # samples are stored as paper, not as ink, with its mark and without
        start = body.index(b"\xff\xee")
        body = body[:start] + body[start + 2 + int.from_bytes(body[start + 2 : start + 4]) :]
    expected = (255 - patches[..., :3]) * (255 - patches[..., 3:]) / 255
    np.testing.assert_allclose(decode_image(body, ImageFeature("x", (16, 16))), expected, atol=4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_colour_profile_is_not_applied(kind: str) -> None:
    image, feature = Image.fromarray(photograph()), ImageFeature("x", (32, 48))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(
        decode_image(save(image, kind, icc_profile=profile), feature), decode_image(save(image, kind), feature)
    )


def test_a_jpeg_with_a_preview_after_it_is_its_first_image() -> None:
    first, second = Image.fromarray(photograph()), Image.fromarray(255 - photograph())
    body = save(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(body)).n_frames == 2  # type: ignore[attr-defined]
    decoded = decode_image(body, ImageFeature("x", (32, 48)))
    assert np.abs(decoded.astype(int) - photograph()).mean() < 6


def test_stretching_averages_when_an_image_shrinks() -> None:
    # A fourth of the size: the filter is a triangle over the neighbourhood, so that flat quarters stay near themselves.
    quarters = np.kron([[0, 100], [200, 40]], np.ones((40, 40)))
    decoded = decode_image(png(quarters), GREY)[..., 0].astype(int)
    by_pillow = Image.fromarray(quarters.astype(np.uint8)).resize((2, 2), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decoded, np.asarray(by_pillow))
    assert decoded[0, 0] < decoded[1, 1] < decoded[0, 1] < decoded[1, 0]


def test_stretching_changes_the_shape_and_cropping_takes_the_centre() -> None:
    wide = np.zeros((2, 6), np.uint8)
    wide[:, 2:4] = [[10, 20], [30, 40]]  # the middle square, at the very size: no pixel is mixed
    crop = ImageFeature("x", (2, 2), mode="L", resize="crop")
    assert decode_image(png(wide), crop)[..., 0].tolist() == [[10, 20], [30, 40]]
    assert decode_image(png(wide.T), crop)[..., 0].tolist() == [[10, 30], [20, 40]]
    assert decode_image(png(wide), GREY)[..., 0].tolist() != [[10, 20], [30, 40]]


def test_cropping_equals_resizing_the_short_side_and_taking_the_centre() -> None:
    # 60 by 100 to 30 by 30: halved to 30 by 50, of which columns 10 to 40 are the middle.
    image = noise(60, 100, 3)
    halved = np.asarray(Image.fromarray(image).resize((50, 30), Image.Resampling.BILINEAR))
    decoded = decode_image(png(image), ImageFeature("x", (30, 30), resize="crop"))
    inner = slice(1, -1)  # at the cut, a neighbour on the other side is not looked at
    np.testing.assert_allclose(decoded[:, inner].astype(int), halved[:, 10:40][:, inner], atol=1)


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (700, 3)])
def test_tiny_and_narrow_images_are_resized(resize: Any, shape: tuple[int, int]) -> None:
    decoded = decode_image(png(np.full(shape, 77)), ImageFeature("x", (4, 6), mode="L", resize=resize))
    assert decoded.shape == (4, 6, 1)
    assert set(decoded.ravel().tolist()) == {77}


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels; of its data there is nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return len(data).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_rejected_by_its_header() -> None:
    assert refusal(bomb(6000, 5000)) == "has 6,000 × 5,000 pixels; use at most 16,000,000"
    assert refusal(bomb(60_000, 50_000)) == "has more than 16,000,000 pixels; make it smaller"
    # A bomb is never decoded: this one's data would be "cannot be decoded".
    assert refusal(bomb(4000, 4000)).startswith("cannot be decoded")


def test_the_feature_sets_the_limit_of_pixels() -> None:
    feature = ImageFeature("x", (2, 2), mode="L", max_pixels=12)
    assert decode_image(png(np.zeros((3, 4))), feature).shape == (2, 2, 1)
    assert refusal(png(np.zeros((13, 1))), feature) == "has 1 × 13 pixels; use at most 12"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_rejected_or_complete(kind: str) -> None:
    body = save(Image.fromarray(photograph()), kind)
    feature = ImageFeature("x", (32, 48))
    whole = decode_image(body, feature)
    rejected = 0
    for end in range(0, len(body), max(len(body) // 97, 1)):
        try:
            np.testing.assert_array_equal(decode_image(body[:end], feature), whole)
        except ImageRefused:
            rejected += 1
    assert rejected >= 90


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_flipped_bits_are_decoded_or_rejected(place: int, flip: int) -> None:
    body = bytearray(save(Image.fromarray(photograph()), "JPEG"))
    body[place % len(body)] ^= flip
    with suppress(ImageRefused):
        assert decode_image(bytes(body), COLOUR).shape == (2, 2, 3)


@given(st.binary(max_size=60))
def test_random_bytes_are_rejected(body: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP"):
        refusal(start + body)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_rejected_even_if_pillow_reads_them(kind: str) -> None:
    assert refusal(save(Image.new("RGB", (16, 16)), kind)) == (
        "is not a PNG, JPEG or WebP image; convert it to one of these"
    )


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_rejected(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    body = save(frames[0], kind, save_all=True, append_images=frames[1:])
    assert refusal(body) == "is an animation of 3 images; send one of them"


def test_images_are_recognized_by_their_first_bytes() -> None:
    image = Image.new("RGB", (4, 4))
    assert all(sniff_image(save(image, kind)) for kind in ("PNG", "JPEG", "WEBP"))
    assert not any(map(sniff_image, [b"", b"RIFF", b'{"features": {}}', save(image, "GIF")]))


PICTURE = png([[1, 2], [3, 4]])
TEXT = base64.b64encode(PICTURE).decode()


def reason_of(value: object, **more: Any) -> str:
    _, reasons = read_images(GREY, [TEXT, value], **more)
    assert list(reasons) == [1]
    return "; ".join(reasons[1])


def test_a_value_is_base64_text_or_the_object_of_tensorflow_serving() -> None:
    samples, reasons = read_images(GREY, [TEXT, {"b64": TEXT}])
    assert reasons == {}
    assert samples.dtype == np.uint8
    assert samples[..., 0].tolist() == [[[1, 2], [3, 4]]] * 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7 is not an image; give a PNG, JPEG or WebP as base64 text"),
        (True, "true is not an image; give a PNG, JPEG or WebP as base64 text"),
        ([[0, 1]], "[[0, 1]] is not an image; give a PNG, JPEG or WebP as base64 text"),
        ({"s3": 7}, '{"s3": 7} is not an image; give a PNG, JPEG or WebP as base64 text'),
        ({"b64": TEXT, "s3": "s3://a/b"}, None),
        ("seven.png", '"seven.png" is not base64; give a PNG, JPEG or WebP as base64 text'),
        (TEXT[:-1], None),
        ("ü", '"ü" is not base64; give a PNG, JPEG or WebP as base64 text'),
        ("", "is not a PNG, JPEG or WebP image; convert it to one of these"),
        (f"data:image/png;base64,{TEXT}", None),
        ({"s3": "s3://data/payloads/x.png"}, "there is no S3 here; give a PNG, JPEG or WebP as base64 text"),
    ],
)
def test_any_other_value_is_rejected_with_a_remedy(value: object, expected: str | None) -> None:
    reason = reason_of(value)
    assert reason == expected if expected is not None else len(reason) < 200


def test_a_data_url_is_rejected_with_its_own_remedy() -> None:
    assert reason_of(f"data:image/png;base64,{TEXT}").endswith("is a data URL; send only the part after its comma")


def test_a_pointer_is_followed() -> None:
    read = image_reader(lambda url: PICTURE if url == "s3://data/a.png" else ("is not there", "upload it"))
    samples, reasons = read(GREY, [{"s3": "s3://data/a.png"}, {"s3": "s3://data/b.png"}])
    assert samples[0, ..., 0].tolist() == [[1, 2], [3, 4]]
    assert reasons == {1: ("is not there", "upload it")}


def test_pillow_is_imported_with_the_first_image_and_not_before() -> None:
    code = "import sys, stepensemble.imaging, stepensemble.ensemble; assert 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
