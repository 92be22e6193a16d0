"""An image as a feature: declared, scaled, drawn, checked by the gate, and predicted in process and by the handlers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from builders import ROOT, manifest, member
from expected_events import EVENTS, image_payload, list_images
from memory import MemoryStack
from stepensemble import Ensemble
from stepensemble.admission.gate import run_gate
from stepensemble.batch.documents import Options
from stepensemble.batch.input.sharding import shard_dataset
from stepensemble.core.arrays import Array
from stepensemble.core.errors import DatasetRefused, InvalidManifest, InvalidPayload
from stepensemble.core.preprocessing.columns import columns_from_bytes
from stepensemble.core.preprocessing.encoding import IMAGE_BYTES, Reasons, normalize
from stepensemble.core.schema.manifest import Feature, ImageFeature, NumberFeature
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.handlers.prediction.payload_objects import FILE_BYTES
from stepensemble.imaging import read_images
from stepensemble.publishing.golden import DRAWN_PIXELS, draw_rows
from stepensemble.publishing.manifest_loader import read_sources

DIGITS = ROOT / "models" / "digits" / "manifest.json"
SEVEN = EVENTS / "digit-7.png"
EXECUTION = {"id": "arn:aws:states:eu-central-1:1:execution:ensemble:run-1", "name": "run-1"}

TWO_PIXELS = np.array([[[[0, 51, 255], [102, 153, 204]]]], np.uint8)
"""One row, one line of two pixels in three channels."""


def given_samples(_: ImageFeature, values: Sequence[Any]) -> tuple[Array, Reasons]:
    """Read images that are samples already."""
    return np.array(values, np.uint8), {}


def encode(**more: Any) -> Array:
    feature = ImageFeature("x", (1, 2), **more)
    (column,) = normalize([feature], [{"x": one} for one in TWO_PIXELS], images=given_samples).values()
    assert column.shape == (1, *feature.shape)
    return column


def test_samples_are_divided_by_255_by_default() -> None:
    column = encode()
    assert column.dtype == np.float32
    assert_allclose(column, [[[[0, 0.2, 1], [0.4, 0.6, 0.8]]]], rtol=1e-7)


def test_scale_mean_and_std_are_applied_channel_by_channel() -> None:
    # (51 / 51 - 2) / 4 = -0.25 in the second channel
    column = encode(scale=51, mean=(1, 2, 3), std=(2, 4, 8))
    assert_array_equal(column, [[[[-0.5, -0.25, 0.25], [0.5, 0.25, 0.125]]]])


def test_the_usual_constants_of_imagenet_are_computed_in_64_bits() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = ((TWO_PIXELS / 255.0 - mean) / std).astype(np.float32)
    assert_array_equal(encode(mean=mean, std=std), expected)


def test_uint8_is_samples_as_they_are() -> None:
    column = encode(dtype="uint8")
    assert column.dtype == np.uint8
    assert_array_equal(column, TWO_PIXELS)


def test_a_layout_is_an_order_of_the_same_numbers() -> None:
    assert encode(dtype="uint8", layout="CHW").tolist() == [[[[0, 102]], [[51, 153]], [[255, 204]]]]
    assert encode(dtype="uint8", layout="flat").tolist() == [[0, 51, 255, 102, 153, 204]]


@pytest.mark.parametrize(("mode", "layout", "shape"), [("L", "HWC", (4, 5, 1)), ("RGB", "CHW", (3, 4, 5))])
def test_a_feature_has_its_shape(mode: Any, layout: Any, shape: tuple[int, ...]) -> None:
    assert ImageFeature("x", (4, 5), mode=mode, layout=layout).shape == shape
    assert ImageFeature("x", (4, 5), mode=mode, layout="flat").shape == (np.prod(shape),)


def test_grey_may_come_without_an_axis_of_channels() -> None:
    feature = ImageFeature("x", (1, 2), mode="L", layout="HW", dtype="uint8")
    (column,) = normalize([feature], [{"x": [[[7], [9]]]}, {"x": [[[1], [2]]]}], images=given_samples).values()
    assert column.tolist() == [[[7, 9]], [[1, 2]]]


def test_images_are_read_row_by_row_and_bad_ones_have_reasons() -> None:
    feature = ImageFeature("image", (8, 8), mode="L")
    image = base64.b64encode(SEVEN.read_bytes()).decode()
    rows = [{"image": None}, {"image": image}, {}, {"image": "?"}, {"image": image}]
    with pytest.raises(InvalidPayload) as rejected:
        normalize([feature], rows, images=read_images)
    assert [str(problem) for problem in rejected.value.problems] == [
        "$.instances[0].image: is missing; give an image as base64 text",
        "$.instances[2].image: is missing; give an image as base64 text",
        '$.instances[3].image: "?" is not base64; give a PNG, JPEG or WebP as base64 text',
    ]


def test_a_caller_that_reads_no_images_rejects_them() -> None:
    with pytest.raises(InvalidPayload, match="is an image, which is not read here"):
        normalize([ImageFeature("x", (1, 1))], [{"x": "…"}])


def test_more_images_than_memory_holds_are_rejected_before_one_is_read() -> None:
    feature = ImageFeature("x", (1024, 1024))
    most = IMAGE_BYTES // (1024 * 1024 * 3 * 4)
    assert most == 2
    with pytest.raises(InvalidPayload) as rejected:
        normalize([feature], [{"x": "not even read"}] * (most + 2), images=read_images)
    assert [str(problem) for problem in rejected.value.problems] == [
        f"$.instances[{row}].x: is one of 4 images of this size; send at most 2 in one execution" for row in (2, 3)
    ]


PHOTO = {"name": "photo", "type": "image", "size": [4, 6]}


def problems_of(feature: dict[str, Any], **more: Any) -> list[str]:
    entry = member("half", columns=["photo"])
    try:
        parse_manifest(json.dumps(manifest(entry, features=[{**PHOTO, **feature}], **more)))
    except InvalidManifest as rejected:
        return [str(problem) for problem in rejected.problems]
    return []


@pytest.mark.parametrize(
    "feature",
    [
        {},
        {"mode": "L", "mean": [0.5], "std": [0.25]},
        {"mean": [1, 2, 3], "std": [1, 2, 3], "scale": 1, "layout": "CHW", "resize": "crop"},
        {"dtype": "uint8", "layout": "flat", "max_pixels": 100},
        {"mode": "L", "layout": "HW", "filter": "lanczos", "antialias": False},
    ],
)
def test_sound_image_features(feature: dict[str, Any]) -> None:
    assert problems_of(feature) == []


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ({"size": [4]}, "$.features[0].size: has 1 entries; give at least 2"),
        ({"size": [4, 5, 3]}, "$.features[0].size: has 3 entries; give at most 2"),
        ({"size": [0, 5]}, "$.features[0].size[0]: 0 is out of bounds; use a whole number of at least 1"),
        ({"size": [4, 9000]}, "$.features[0].size[1]: 9000 is out of bounds; use a whole number of at most 2048"),
        ({"mode": "RGBA"}, '$.features[0].mode: "RGBA" is not allowed; use one of "L", "RGB", did you mean "RGB"?'),
        ({"scale": 0}, "$.features[0].scale: 0 is out of bounds; use a number of at least 1e-50"),
        ({"std": [1, 0, 1]}, "$.features[0].std[1]: 0 is out of bounds; use a number of at least 1e-50"),
        ({"mean": [1]}, '$.features[0].mean: has 1 numbers; give 3: one for each channel of mode "RGB"'),
        ({"mode": "L", "std": [1, 2]}, '$.features[0].std: has 2 numbers; give 1: one for each channel of mode "L"'),
        (
            {"dtype": "uint8", "scale": 2},
            '$.features[0].scale: has no effect with dtype uint8; remove it, or use the dtype "float32"',
        ),
        (
            {"layout": "HW"},
            '$.features[0].layout: "HW" has no place for the 3 channels of "RGB"; '
            'use the mode "L", or the layout "HWC", "CHW" or "flat"',
        ),
        (
            {"filter": "area", "antialias": False},
            '$.features[0].antialias: is false with the filter "area"; '
            'remove it, or use the filter "bilinear", "bicubic" or "lanczos"',
        ),
        (
            {"filter": "cubic"},
            '$.features[0].filter: "cubic" is not allowed; use one of "area", "bicubic", "bilinear", "lanczos", '
            '"nearest", did you mean "bicubic"?',
        ),
        (
            {"max_pixels": 10**9},
            "$.features[0].max_pixels: 1000000000 is out of bounds; use a whole number of at most 16000000",
        ),
        ({"missing": "x"}, '$.features[0].missing: "missing" is not a known key; remove it'),
    ],
)
def test_an_image_feature_that_is_unsound(feature: dict[str, Any], expected: str) -> None:
    assert problems_of(feature) == [expected]


def test_an_image_is_a_members_only_column() -> None:
    data = manifest(member("half", columns=["photo", "x"]), features=[PHOTO, {"name": "x", "type": "number"}])
    with pytest.raises(InvalidManifest, match="together with other columns"):
        parse_manifest(json.dumps(data))


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["L", "RGB"]), st.sampled_from(["stretch", "crop"]))
def test_drawn_images_are_accepted_the_same_each_time_and_small(
    height: int, width: int, mode: Any, resize: Any
) -> None:
    feature = ImageFeature("x", (height, width), mode=mode, resize=resize)
    drawn = draw_rows([feature], 2)
    assert drawn == draw_rows([feature], 2) == json.loads(json.dumps(drawn))
    assert drawn[0] != drawn[1] or height * width < 4
    assert all(len(row["x"]) < 1.4 * DRAWN_PIXELS * DRAWN_PIXELS * 3 + 400 for row in drawn)
    (column,) = normalize([feature], drawn, images=read_images).values()
    assert column.shape == (2, height, width, len(mode))


def test_the_gate_admits_the_digits_and_their_images_are_in_the_fingerprint() -> None:
    report = run_gate(read_sources(DIGITS))
    assert report.problems == ()
    assert report.warnings == ()
    assert len(report.fingerprint().instances) == 8


def test_the_gate_rejects_golden_images_that_cannot_be_decoded(tmp_path: Path) -> None:
    data = json.loads(DIGITS.read_text())
    for one in data["members"]:
        one["artifact"] = str(DIGITS.parent / one["artifact"])
    sound = image_payload(SEVEN)["features"]
    data["golden"] = [sound, {"image": sound["image"][:80]}, {"image": {"s3": "s3://data/payloads/x.png"}}]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InvalidManifest) as rejected:
        run_gate(read_sources(path))
    first, second = rejected.value.problems
    assert first.path == "$.golden[1].image"
    assert first.message.startswith("cannot be decoded")
    assert (second.path, second.message) == ("$.golden[2].image", "there is no S3 here")


def test_a_batch_rejects_a_release_that_needs_images_before_it_reads_anything() -> None:
    features: list[Feature] = [NumberFeature("x"), ImageFeature("photo", (2, 2))]
    with pytest.raises(DatasetRefused) as rejected:
        shard_dataset(MemoryStack().data, [], Options(), features)
    assert [str(problem) for problem in rejected.value.problems] == [
        "feature photo: is an image, which a batch does not support; send images in payloads"
    ]


@pytest.fixture
def stack() -> MemoryStack:
    made = MemoryStack()
    made.publish(read_sources(DIGITS))
    return made


def normalize_payload(stack: MemoryStack, payload: object) -> dict[str, Any]:
    normalized: dict[str, Any] = stack.normalize({"payload": payload, "execution": EXECUTION})
    return normalized


def test_an_image_in_s3_becomes_the_same_columns_as_its_text(stack: MemoryStack) -> None:
    expected = normalize_payload(stack, image_payload(SEVEN))["columns"]
    for key in ("payloads/seven.png", "inbox/a folder/ü 7.png"):
        stack.data.write(key, SEVEN.read_bytes())
        got = normalize_payload(stack, {"features": {"image": {"s3": f"s3://data/{key}"}}})
        assert got["columns"] == expected
        assert got["rows"] == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://data/payloads/none.png", "s3://data/payloads/none.png is not there; upload the image first"),
        ("s3://data/records/x", "is elsewhere; use s3://data/payloads/… or s3://data/inbox/…"),
        ("s3://artifacts/payloads/x", "is elsewhere; use s3://data/payloads/… or s3://data/inbox/…"),
        ("seven.png", "is elsewhere; use s3://data/payloads/… or s3://data/inbox/…"),
    ],
)
def test_a_pointer_to_a_missing_or_foreign_object_is_rejected(stack: MemoryStack, url: str, expected: str) -> None:
    failure = normalize_payload(stack, {"features": {"image": {"s3": url}}})["failure"]
    assert failure["error"] == "InvalidPayload"
    assert "$.features.image" in failure["cause"]
    assert expected in failure["cause"]


def test_a_file_that_is_too_large_is_rejected_unread(stack: MemoryStack) -> None:
    stack.data.write("payloads/large.png", bytes(FILE_BYTES + 1))
    before = stack.data.calls["payloads/large.png"]
    failure = normalize_payload(stack, {"features": {"image": {"s3": "s3://data/payloads/large.png"}}})["failure"]
    assert re.search(r"has 33,554,433 bytes; use at most 33,554,432", failure["cause"])
    assert stack.data.calls["payloads/large.png"] == before


def test_columns_of_many_images_travel_by_pointer(stack: MemoryStack) -> None:
    rows = [image_payload(SEVEN)["features"]] * 300
    key = "payloads/rows.json"
    stack.data.write(key, json.dumps(rows).encode())
    normalized = normalize_payload(stack, {"instances": {"s3": f"s3://data/{key}"}})
    columns = columns_from_bytes(stack.data.read(normalized["columns"]["s3"].removeprefix("s3://data/")))
    assert columns["image"].shape == (300, 8, 8, 1)
    assert columns["image"].dtype == np.float32


def test_every_event_is_predicted_in_process_one_by_one_and_together() -> None:
    ensemble = Ensemble.load(DIGITS)
    rows = [image_payload(path)["features"] for path in list_images()]
    together = ensemble.predict({"instances": rows})["predictions"]
    alone = [ensemble.predict({"features": row})["predictions"][0] for row in rows]
    assert [one["label"] for one in together] == [one["label"] for one in alone] == ["3", "5", "7"]
    assert_allclose([one["score"] for one in together], [one["score"] for one in alone], atol=1e-6)
