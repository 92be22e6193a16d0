"""Resizes: by hand where numbers can be, by Pillow and TensorFlow where they have the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stepensemble.core.schema.manifest import ImageFeature
from stepensemble.imaging.decoding import decode_image, encode_png

PILLOWS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SIZES = [((48, 64), (22, 22)), ((60, 45), (7, 80)), ((9, 11), (30, 20))]


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels)).astype(np.uint8)


def resize(samples: np.ndarray, size: tuple[int, int], **more: Any) -> np.ndarray:
    mode = "L" if samples.shape[-1] == 1 else "RGB"
    return decode_image(encode_png(samples), ImageFeature("x", size, mode=mode, **more)).astype(float)


def line(*samples: int) -> np.ndarray:
    return np.array(samples, np.uint8).reshape(1, -1, 1)


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("filter_", PILLOWS)
def test_a_filter_is_pillows_filter_of_that_name(shape: tuple[int, int], size: tuple[int, int], filter_: str) -> None:
    image = noise(*shape)
    expected = Image.fromarray(image).resize(size[::-1], PILLOWS[filter_])
    np.testing.assert_array_equal(resize(image, size, filter=filter_), np.asarray(expected))


def test_area_is_the_mean_of_the_covered_input() -> None:
    # 5 pixels to 2: each covers two and a half. (10 + 20 + 30/2) / 2.5 = 18, (30/2 + 40 + 50) / 2.5 = 42.
    assert resize(line(10, 20, 30, 40, 50), (1, 2), filter="area").ravel().tolist() == [18, 42]
    # 2 to 3: two thirds each. The middle one covers a third of either.
    assert resize(line(0, 90), (1, 3), filter="area").ravel().tolist() == [0, 45, 90]


def test_without_antialias_only_the_nearest_pixels_count() -> None:
    # 8 to 2: the centres are at 1.5 and 5.5, so between the second and third, and the sixth and seventh pixel.
    bright = line(255, 0, 40, 255, 255, 10, 20, 255)
    assert resize(bright, (1, 2), antialias=False).ravel().tolist() == [20, 15]
    # Keys' weights at a half are 9/16 for the near two and -1/16 for the far two: 9/16 * 40 - 1/16 * 510 < 0.
    assert resize(bright, (1, 2), antialias=False, filter="bicubic").ravel().tolist() == [0, 0]
    assert resize(line(*range(0, 80, 10)), (1, 2), antialias=False, filter="bicubic").ravel().tolist() == [15, 55]


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(["bilinear", "bicubic", "lanczos", "area"]),
    st.sampled_from(["stretch", "crop"]),
    st.integers(0, 255),
)
def test_one_colour_stays_that_colour(
    shape: tuple[int, int], size: tuple[int, int], filter_: Any, way: Any, colour: int
) -> None:
    image = np.full((*shape, 1), colour, np.uint8)
    more: dict[str, Any] = {} if filter_ == "area" else {"antialias": False}
    assert set(resize(image, size, filter=filter_, resize=way, **more).ravel()) == {colour}


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_area_of_whole_pixels_is_their_mean(height: int, width: int, down: int, across: int) -> None:
    image = noise(height * down, width * across)
    mean = image.reshape(height, down, width, across, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, (height, width), filter="area"), mean, atol=0.5 + 1e-9)


@pytest.mark.parametrize("filter_", ["bilinear", "area"])
def test_a_crop_is_the_centre_of_the_image(filter_: Any) -> None:
    image = noise(8, 20)
    more: dict[str, Any] = {} if filter_ == "area" else {"antialias": False}
    middle = resize(image[:, 6:14], (4, 4), filter=filter_, **more)
    np.testing.assert_array_equal(resize(image, (4, 4), filter=filter_, resize="crop", **more), middle)


@pytest.mark.tensorflow
@pytest.mark.slow
def test_filters_are_tensorflows() -> None:
    import tensorflow as tf

    for shape, size in SIZES:
        image = noise(*shape)
        for filter_, method in (
            ("bilinear", "bilinear"),
            ("bicubic", "bicubic"),
            ("lanczos", "lanczos3"),
            ("area", "area"),
        ):
            for antialias in (True, False):
                if filter_ == "area" and not antialias:
                    continue
                if antialias and filter_ in ("bicubic", "lanczos") and size > shape:
                    continue  # what overshoots is cut twice by Pillow, between its two passes too
                theirs = tf.image.resize(image.astype(np.float32), size, method, antialias=antialias).numpy()
                ours = resize(image, size, filter=filter_, antialias=antialias)
                # They round nothing, and look bicubic weights up in a table of 1,024. Pillow, which antialiases, rounds
                # twice and sums in whole numbers.
                atol = 3 if antialias and filter_ != "area" else 0.75 if filter_ == "bicubic" else 0.51
                np.testing.assert_allclose(ours, theirs.clip(0, 255), atol=atol, err_msg=f"{filter_} {antialias}")
