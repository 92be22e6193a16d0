from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ai_edge_litert import interpreter

from builders import ROOT
from expected_events import EVENTS, image_payload, list_events, list_images, without_volatile
from plain_kernels.sitecustomize import use_plain_kernels
from stepensemble import Ensemble
from stepensemble.core.errors import InvalidPayload
from written import assert_as_written

VALID = list_events("passenger")
INVALID = [path for path in list_events("bad-") if path.stem != "bad-not-json"]


@pytest.fixture(scope="module", params=["kernels of this processor", "plain kernels"])
def load(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Ensemble]]:
    """Return a function that loads an ensemble; also with plain kernels, which round unlike any processor's here."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "plain kernels":
            patch.setattr(interpreter, "Interpreter", interpreter.Interpreter)
            use_plain_kernels(interpreter)
        yield lambda name: Ensemble.load(ROOT / "models" / name)


@pytest.fixture(scope="module")
def ensemble(load: Callable[[str], Ensemble]) -> Ensemble:
    return load("manifest.json")


def test_there_are_valid_and_invalid_events() -> None:
    assert {path.name for path in VALID} == {"passenger.json", "passengers.json"}
    assert len(INVALID) >= 4
    assert all(path in VALID + INVALID for path in list_events() if path.stem != "bad-not-json")


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.name)
def test_an_event_is_predicted_as_in_the_file_beside_it(ensemble: Ensemble, path: Path) -> None:
    expected = json.loads(path.with_suffix(".output.json").read_text())
    assert_as_written(without_volatile(ensemble.predict(json.loads(path.read_text()))), expected)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.name)
def test_an_invalid_event_is_rejected_as_in_the_file_beside_it(ensemble: Ensemble, path: Path) -> None:
    expected = json.loads(path.with_suffix(".error.json").read_text())
    with pytest.raises(InvalidPayload) as rejected:
        ensemble.predict(json.loads(path.read_text()))
    assert {"error": "InvalidPayload", "cause": str(rejected.value)} == expected


def test_an_image_is_predicted_as_in_the_file_beside_it_and_as_in_its_name(load: Callable[[str], Ensemble]) -> None:
    digits = load("digits/manifest.json")
    pictures = list_images()
    assert [path.stem for path in pictures] == ["digit-3", "digit-5", "digit-7"]
    for path in pictures:
        output = without_volatile(digits.predict(image_payload(path)))
        assert_as_written(output, json.loads(path.with_suffix(".output.json").read_text()))
        (prediction,) = output["predictions"]
        assert f"digit-{prediction['label']}" == path.stem


def test_the_event_that_is_not_json_is_not_json() -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads((EVENTS / "bad-not-json.json").read_text())


def test_the_eight_passengers_show_every_category_of_every_field(ensemble: Ensemble) -> None:
    rows = json.loads((EVENTS / "passengers.json").read_text())["instances"]
    assert len(rows) == 8
    for feature in ensemble.release.features:
        vocabulary = getattr(feature, "vocabulary", ())
        assert set(vocabulary) <= {row.get(feature.name) for row in rows}
