"""The HTTP API as its clients use it: TensorFlow Serving's documented calls, requests, signed requests and curl."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from PIL import Image

from builders import member, sources
from driving import ROOT, copy_project
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.core.errors import RecordNotFound
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources

PASSENGER = {"Pclass": 3, "Sex": "male", "Age": 22, "SibSp": 1, "Parch": 0, "Fare": 7.25, "Embarked": "S"}
MODELS = "/v1/models"


@pytest.fixture(scope="module")
def http_url(local: LocalStack, stack: Stack) -> str:
    """Address of the HTTP API of the shipped ensemble."""
    assert stack.outputs
    assert local.http is not None
    return local.http


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP API of half_plus_two, on a stack that requires signatures.

    A logarithm is a voter of weight 0: it counts for a quorum, and has no output for negative numbers.
    """
    project = copy_project(tmp_path_factory.mktemp("halves"))
    members = member("half_plus_two"), member("logarithm", "logarithm", weight=0)
    read = sources(
        tmp_path_factory.mktemp("models"), *members, aggregation={"method": "weighted_mean"}, golden=[{"x": 1.0}]
    )
    with LocalStack.start(project, LocalStackOptions(account="888888888888", auth=True, tensorflow=False)) as started:
        ensure_published(local_stack(started.name, started.endpoint), read, notify=lambda _: None)
        assert started.http is not None
        yield started.http


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP API of the shipped ensemble whose only feature is an image."""
    project = copy_project(tmp_path_factory.mktemp("digits"))
    read = read_sources(project / "models" / "digits" / "manifest.json")
    with LocalStack.start(project, LocalStackOptions(account="777777777777", tensorflow=False)) as started:
        ensure_published(local_stack(started.name, started.endpoint), read, notify=lambda _: None)
        assert started.http is not None
        yield started.http


def signed(url: str, body: str, service: str = "execute-api", verb: str = "POST") -> dict[str, str]:
    """Sign a request as AWS's SDK for Python does, and return its headers."""
    request = AWSRequest(verb, url, data=body, headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials("local", "local"), service, "us-east-1").add_auth(request)
    return dict(request.headers.items())


def post_signed(url: str, body: object) -> requests.Response:
    text = json.dumps(body)
    # The connection sets the Host header; botocore signs it.
    return requests.post(url, data=text, headers=signed(url, text), timeout=60)


# ------------------------------------------------------------------------------- TensorFlow Serving's documentation


def test_the_documented_predict_call(halves: str) -> None:
    response = post_signed(f"{halves}{MODELS}/half_plus_two:predict", {"instances": [1.0, 2.0, 5.0]})
    assert response.json() == {"predictions": [2.5, 3.0, 4.5]}


def test_a_list_around_each_number_gets_one_in_the_response(halves: str) -> None:
    url = f"{halves}{MODELS}/half_plus_two:predict"
    assert post_signed(url, {"instances": [[1.0], [2.0]]}).json() == {"predictions": [[2.5], [3.0]]}
    assert post_signed(url, {"signature_name": "serving_default", "inputs": [[1.0], [2.0]]}).json() == {
        "outputs": [[2.5], [3.0]]
    }


def test_the_documented_regress_call(halves: str) -> None:
    body = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
    for name in ("half_plus_two", "halves"):
        assert post_signed(f"{halves}{MODELS}/{name}:regress", body).json() == {"results": [2.5, 3.0]}


def test_a_regression_has_one_output_without_a_name(halves: str) -> None:
    url = f"{halves}{MODELS}/halves:predict"
    assert post_signed(url, {"instances": [{"x": 1.0}, {"x": 2.0}]}).json() == {"predictions": [2.5, 3.0]}
    assert post_signed(url, {"inputs": {"x": [1.0, 2.0]}}).json() == {"outputs": [2.5, 3.0]}
    assert post_signed(url, {"instances": [1.0, 2.0]}).json() == {"predictions": [2.5, 3.0]}


def test_the_documented_call_of_an_unknown_model(http_url: str) -> None:
    response = requests.post(f"{http_url}{MODELS}/half:predict", data='{"instances": [1.0,5.0]}', timeout=60)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"error": "Servable not found for request: Latest(half)"}


def test_the_documented_status_call_and_the_versions_it_names(http_url: str, stack: Stack) -> None:
    status = requests.get(f"{http_url}{MODELS}/titanic", timeout=60).json()
    (only,) = status["model_version_status"]
    release = stack.releases.read_current()[0].release
    assert int(only["version"]) == int(release[:13], 16)
    assert (only["state"], only["status"]) == ("AVAILABLE", {"error_code": "OK", "error_message": ""})
    body = {"instances": [PASSENGER]}
    plain = requests.post(f"{http_url}{MODELS}/titanic:predict", json=body, timeout=60)
    for place in (f"versions/{only['version']}", "labels/stable"):
        assert requests.get(f"{http_url}{MODELS}/titanic/{place}", timeout=60).json() == status
        again = requests.post(f"{http_url}{MODELS}/titanic/{place}:predict", json=body, timeout=60)
        assert again.json() == plain.json()
        assert again.headers["x-release"] == release


@pytest.mark.parametrize(
    ("place", "status", "expected"),
    [
        ("versions/3", 404, "Servable not found for request: Specific(titanic, 3)"),
        ("versions/x", 400, f"Malformed request: POST {MODELS}/titanic/versions/x:predict"),
        ("labels/canary", 400, "Unrecognized servable version label: canary"),
    ],
)
def test_a_version_that_is_not_served_gets_tensorflow_servings_error(
    http_url: str, place: str, status: int, expected: str
) -> None:
    response = requests.post(f"{http_url}{MODELS}/titanic/{place}:predict", json={"instances": [PASSENGER]}, timeout=60)
    assert (response.status_code, response.json()) == (status, {"error": expected})


def test_a_member_is_invoked_with_its_models_tensor_as_its_signature_states(http_url: str) -> None:
    described = requests.get(f"{http_url}{MODELS}/linear/metadata", timeout=60).json()
    signature = described["metadata"]["signature_def"]["signature_def"]["serving_default"]
    ((_, tensor),) = signature["inputs"].items()
    width = int(tensor["tensor_shape"]["dim"][1]["size"])
    url = f"{http_url}{MODELS}/linear:predict"
    rows = requests.post(url, json={"instances": [[0.0] * width, [1.0] * width]}, timeout=60).json()["predictions"]
    columns = requests.post(url, json={"inputs": [[0.0] * width, [1.0] * width]}, timeout=60).json()["outputs"]
    assert rows == columns
    assert [len(row) for row in rows] == [1, 1]
    wrong = requests.post(url, json={"instances": [[0.0]]}, timeout=60)
    assert wrong.status_code == 400
    assert "$.instances[0]: has shape [1]; give nested lists of numbers of shape [11]" in wrong.json()["error"]


def test_the_ensemble_and_its_members_predict_the_same_by_every_method(http_url: str) -> None:
    full = requests.post(f"{http_url}/predict", json={"features": PASSENGER}, timeout=60).json()
    probability = full["predictions"][0]["value"]

    def post_predict(name: str, method: str, **body: Any) -> Any:
        return requests.post(f"{http_url}{MODELS}/{name}:{method}", json=body, timeout=60).json()

    assert post_predict("titanic", "predict", instances=[PASSENGER]) == {
        "predictions": [{"probability": probability, "label": "died"}]
    }
    columns = {name: [value, value] for name, value in PASSENGER.items()}
    assert post_predict("titanic", "predict", inputs=columns) == {
        "outputs": {"probability": [probability] * 2, "label": ["died"] * 2}
    }
    assert post_predict("titanic", "regress", examples=[PASSENGER]) == {"results": [probability]}
    ((died, survived),) = post_predict("titanic", "classify", examples=[PASSENGER])["results"]
    assert (died[0], survived) == ("died", ["survived", probability])
    for one in full["members"]:
        (expected,) = one["outputs"]
        assert post_predict(one["id"], "predict", instances=[PASSENGER]) == {"predictions": [[expected]]}
        assert post_predict(one["id"], "regress", examples=[PASSENGER])["results"] == pytest.approx([expected])


# ------------------------------------------------------------------------------------------- this project's routes


def test_a_prediction_is_the_executions_output_and_is_read_back(http_url: str, stack: Stack) -> None:
    response = requests.post(f"{http_url}/predict", json={"features": PASSENGER}, timeout=60)
    output = response.json()
    assert response.headers["x-prediction-id"] == output["prediction_id"]
    record = requests.get(f"{http_url}/predictions/{output['prediction_id']}", timeout=60).json()
    assert record["output"] == output
    assert record["input"] == {"features": PASSENGER}
    assert stack.records.read(output["prediction_id"]).rows == 1


def test_rows_beyond_an_executions_input_go_by_s3_and_come_back_whole(http_url: str) -> None:
    rows = [{**PASSENGER, "Age": age % 80} for age in range(3000)]
    output = requests.post(f"{http_url}/predict", json={"instances": rows}, timeout=120).json()
    assert len(output["predictions"]) == 3000
    assert [len(one["outputs"]) for one in output["members"]] == [3000] * 4
    short = requests.post(f"{http_url}{MODELS}/titanic:predict", json={"instances": rows}, timeout=120).json()
    assert [one["probability"] for one in short["predictions"]] == [one["value"] for one in output["predictions"]]


def test_a_warm_up_is_rejected(http_url: str, stack: Stack) -> None:
    assert stack.outputs
    response = requests.post(f"{http_url}/predict", json={"warmup": True}, timeout=60)
    assert response.status_code == 400
    assert [problem["path"] for problem in response.json()["problems"]] == ["$.warmup"]


def test_every_bad_field_is_named_and_nothing_is_recorded(http_url: str, stack: Stack) -> None:
    before = len(stack.records.latest(1000))
    body = {"instances": [{**PASSENGER, "Age": "x", "Fare": True}, {**PASSENGER, "Hat": 1}]}
    response = requests.post(f"{http_url}/predict", json=body, timeout=60)
    assert response.status_code == 400
    rejected = response.json()
    assert rejected["error"] == "InvalidPayload"
    assert [problem["path"] for problem in rejected["problems"]] == [
        "$.instances[0].Age",
        "$.instances[0].Fare",
        "$.instances[1].Hat",
    ]
    assert all(problem["message"] and problem["remedy"] for problem in rejected["problems"])
    assert len(stack.records.latest(1000)) == before


def test_more_bad_fields_than_a_response_holds_are_counted(http_url: str) -> None:
    rows = [{**PASSENGER, **{f"hat{number}": 1 for number in range(20)}}] * 9000
    response = requests.post(f"{http_url}/predict", json={"instances": rows}, timeout=60)
    assert response.status_code == 400
    assert response.json()["message"].startswith("180000 problems:\n- $.instances[0].hat0: ")
    assert response.json()["problems"][-1]["remedy"] == "fix these first"


def test_without_a_quorum_the_record_is_named(halves: str) -> None:
    body = {"features": {"x": -4.0}, "quorum": {"min_members": 2}}
    rejected = post_signed(f"{halves}/predict", body)
    assert rejected.status_code == 422
    assert rejected.json()["error"] == "QuorumNotMet"
    record = f"{halves}/predictions/{rejected.json()['prediction_id']}"
    kept = requests.get(record, headers=signed(record, "", verb="GET"), timeout=60).json()
    assert kept["failure"] == rejected.json()["message"]
    assert rejected.headers["x-prediction-id"] == kept["prediction_id"]


def test_a_members_failure_is_reported_as_its_own(halves: str) -> None:
    response = post_signed(f"{halves}{MODELS}/logarithm:predict", {"instances": [-4.0]})
    assert (response.status_code, list(response.json())) == (500, ["error"])
    assert "not finite" in response.json()["error"]
    response = post_signed(f"{halves}{MODELS}/logarithm:predict", {"instances": [-4.0, 1.0]})
    assert response.json() == {"predictions": [None, 0.0]}


def test_the_same_id_with_another_input_is_a_conflict(http_url: str) -> None:
    first = {"features": PASSENGER, "prediction_id": "http-conflict"}
    assert requests.post(f"{http_url}/predict", json=first, timeout=60).status_code == 200
    assert requests.post(f"{http_url}/predict", json=first, timeout=60).status_code == 200
    second = {**first, "features": {**PASSENGER, "Age": 23}}
    rejected = requests.post(f"{http_url}/predict", json=second, timeout=60)
    assert (rejected.status_code, rejected.json()["error"]) == (409, "PredictionConflict")


def test_the_endpoint_reports_its_health_and_its_inputs(http_url: str) -> None:
    assert requests.get(f"{http_url}/health", timeout=60).json()["ensemble"] == "titanic"
    assert requests.get(f"{http_url}/openapi.json", timeout=60).json()["openapi"] == "3.1.0"


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/predictions/none", 404),
        ("GET", "/predictions/%00", 404),
        ("GET", "/predict", 405),
        ("POST", "/health", 405),
        ("GET", f"{MODELS}/titanic:predict", 400),
        ("POST", f"{MODELS}/titanic:explain", 400),
        ("GET", f"{MODELS}/nobody", 404),
        ("GET", f"{MODELS}/nobody/metadata", 404),
        ("GET", f"{MODELS}/no%20body/metadata", 404),
        ("GET", f"{MODELS}/n%C3%B6body/metadata", 404),
    ],
)
def test_an_unknown_path_or_method_is_an_error(http_url: str, verb: str, path: str, status: int) -> None:
    response = requests.request(verb, http_url + path, data="{}" if verb == "POST" else None, timeout=60)
    assert response.status_code == status
    assert "error" in response.json()
    assert (status == 405) == ("Allow" in response.headers)


# --------------------------------------------------------------------------------------------------------- images

SEVEN = (ROOT / "events" / "digit-7.png").read_bytes()


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded"])
def test_an_image_is_sent_as_it_is(digits: str, kind: str) -> None:
    response = requests.post(f"{digits}/predict", data=SEVEN, headers={"Content-Type": kind}, timeout=60)
    (prediction,) = response.json()["predictions"]
    assert (prediction["value"], prediction["label"]) == (7, "7")
    assert len(response.json()["members"]) == 3


def test_an_image_is_sent_as_tensorflow_servings_clients_send_one(digits: str) -> None:
    body = {"instances": [{"b64": base64.b64encode(SEVEN).decode()}]}
    (prediction,) = requests.post(f"{digits}{MODELS}/digits:predict", json=body, timeout=60).json()["predictions"]
    assert prediction["label"] == "7"
    (scores,) = requests.post(f"{digits}{MODELS}/shallow:predict", json=body, timeout=60).json()["predictions"]
    assert max(range(10), key=lambda digit: scores[digit]) == 7


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_needs_no_header_to_send_an_image(digits: str) -> None:
    command = ["curl", "-s", "--data-binary", "@events/digit-7.png", f"{digits}/predict"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    response = json.loads(done.stdout)
    assert (response["predictions"][0]["value"], len(response["members"])) == (7, 3)
    assert 0.9 < response["predictions"][0]["score"] <= 1


def save(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


DIGIT = Image.open(io.BytesIO(SEVEN))
LARGE = DIGIT.resize((64, 64)).convert("RGB")
JPEG = save(LARGE, "JPEG")


@pytest.mark.parametrize(
    "image",
    [
        JPEG,
        save(LARGE.convert("CMYK"), "JPEG"),
        save(LARGE, "WEBP", lossless=True),
        save(Image.fromarray(np.asarray(DIGIT, np.uint16) * 257)),
        save(DIGIT.convert("RGBA").quantize(16)),
        save(DIGIT.resize((3000, 3000), Image.Resampling.NEAREST)),
    ],
    ids=["jpeg", "cmyk", "webp", "16 bits", "palette", "large"],
)
def test_the_same_digit_is_predicted_from_every_kind_of_file(digits: str, image: bytes) -> None:
    response = requests.post(f"{digits}/predict", data=image, timeout=60)
    assert response.json()["predictions"][0]["value"] == 7


def test_one_pixel_is_an_image_too(digits: str) -> None:
    response = requests.post(f"{digits}/predict", data=save(Image.new("L", (1, 1), 7)), timeout=60)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (JPEG[: len(JPEG) // 2], "cannot be decoded"),
        (SEVEN[:8], "is not a PNG, JPEG or WebP image"),
        (save(Image.new("1", (20_000, 20_000))), "has more than 16,000,000 pixels"),
        (save(Image.new("1", (5_000, 5_000))), "has 5,000 × 5,000 pixels"),
        (save(LARGE, "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 64))]), "is an animation"),
    ],
    ids=["half a jpeg", "a signature alone", "bomb", "too large", "animation"],
)
def test_an_invalid_image_is_rejected_alike_by_every_endpoint(digits: str, image: bytes, expected: str) -> None:
    raw = requests.post(f"{digits}/predict", data=image, timeout=60)
    assert raw.status_code == 400
    (problem,) = raw.json()["problems"]
    assert problem["path"] == "$.features.image"
    assert expected in problem["message"]
    body = {"instances": [{"image": {"b64": base64.b64encode(image).decode()}}]}
    for name in ("digits", "shallow"):
        rejected = requests.post(f"{digits}{MODELS}/{name}:predict", json=body, timeout=60)
        assert rejected.status_code == 400
        assert f"$.instances[0].image: {problem['message']}; {problem['remedy']}" in rejected.json()["error"]


def test_a_file_that_is_not_an_image_is_rejected(digits: str) -> None:
    cut = requests.post(f"{digits}/predict", data=SEVEN[:40], headers={"Content-Type": "image/png"}, timeout=60)
    assert (cut.status_code, cut.json()["problems"][0]["path"]) == (400, "$.features.image")


# -------------------------------------------------------------------------------------------------------- malformed

DEEP = b'{"features": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"features": {"Age": NaN}}',
        b'{"features": {"Age": 1e999}}',
        b'{"features": {"Sex": "\\ud800"}}',
        b'{"features": {"Age": ' + b"9" * 5000 + b"}}",
        b'{"instances": {"s3": "s3://elsewhere/key"}}',
        DEEP,
    ],
)
@pytest.mark.parametrize("path", ["/predict", f"{MODELS}/titanic:predict", f"{MODELS}/linear:predict"])
def test_a_malformed_body_is_a_client_error_with_its_reason(http_url: str, path: str, body: bytes) -> None:
    response = requests.post(http_url + path, data=body, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/plain", 200),
        ("", 200),
        ("multipart/form-data; boundary=x", 415),
        ("image/tiff", 415),
        ("image/png", 400),
    ],
)
def test_json_is_accepted_under_any_content_type_except_another_formats(http_url: str, kind: str, status: int) -> None:
    body = json.dumps({"features": PASSENGER}).encode()
    response = requests.post(f"{http_url}/predict", data=body, headers={"Content-Type": kind}, timeout=60)
    assert response.status_code == status


@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream"])
def test_a_compressed_body_and_a_byte_order_mark_are_accepted(http_url: str, kind: str) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"instances": [PASSENGER]}).encode()
    for sent, headers in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        response = requests.post(
            f"{http_url}{MODELS}/titanic:predict", data=sent, headers={"Content-Type": kind, **headers}, timeout=60
        )
        assert response.json()["predictions"][0]["label"] == "died"


@pytest.mark.parametrize("verb", ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods_without_a_route_end_at_api_gateway(http_url: str, verb: str) -> None:
    response = requests.request(verb, f"{http_url}/predict", timeout=60)
    assert response.status_code == 404
    assert response.text == ("" if verb == "HEAD" else '{"message": "Not Found"}')


def test_a_path_that_api_gateway_cannot_decode_twice_is_rejected_there(http_url: str) -> None:
    response = requests.get(f"{http_url}/predictions/50%25off", timeout=60)
    assert (response.status_code, response.json()) == (400, {"message": "Bad Request"})


def test_a_body_beyond_six_megabytes_is_rejected(http_url: str) -> None:
    response = requests.post(f"{http_url}/predict", data=b" " * (7 * 1024 * 1024), timeout=60)
    assert response.status_code == 413


def test_metadata_too_large_for_an_execution_is_rejected_without_a_retry(http_url: str) -> None:
    body = {"features": PASSENGER, "metadata": {"note": "x" * 300_000}}
    response = requests.post(f"{http_url}/predict", json=body, timeout=60)
    assert (response.status_code, response.json()["error"]) == (413, "PayloadTooLarge")
    assert [problem["path"] for problem in response.json()["problems"]] == ["$.metadata"]
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"x" * 40_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000, 431),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000000\r\n\r\n", 413),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nHost: rebound.example.com\r\nContent-Length: 2\r\n\r\n{}", 403),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Length: 2\r\n\r\n{}", 403),
    ],
)
def test_a_request_that_does_not_reach_the_function_gets_api_gateways_error(
    http_url: str, sent: bytes, status: int
) -> None:
    address = urlsplit(http_url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, list(json.loads(response.read()))) == (status, ["message"])
        assert response.headers["Content-Type"] == "application/json"


def test_a_truncated_body_gets_no_prediction_and_no_record(http_url: str, stack: Stack) -> None:
    body = json.dumps({"features": PASSENGER, "prediction_id": "cut"}).encode() + b"\n"
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    address = urlsplit(http_url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head + body[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(12) == b"HTTP/1.1 400"
    with pytest.raises(RecordNotFound):
        stack.records.read("cut")


def test_the_endpoint_responds_after_a_client_disconnects(http_url: str) -> None:
    address = urlsplit(http_url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
    assert requests.get(f"{http_url}/health", timeout=60).status_code == 200


# ------------------------------------------------------------------------------------------------- authorization


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer token"}, {"Authorization": "AWS4-HMAC-SHA256"}])
def test_without_a_signature_every_request_is_rejected(halves: str, headers: dict[str, str]) -> None:
    response = requests.get(f"{halves}/health", headers=headers, timeout=60)
    assert (response.status_code, response.json()) == (403, {"message": "Forbidden"})


def test_a_signature_for_another_service_is_rejected(halves: str) -> None:
    url = f"{halves}/predict"
    assert requests.post(url, data="{}", headers=signed(url, "{}", "s3"), timeout=60).status_code == 403


def test_a_signed_request_gets_a_response(halves: str) -> None:
    assert post_signed(f"{halves}/predict", {"features": {"x": 1.0}}).json()["predictions"][0]["value"] == 2.5


# ------------------------------------------------------------------------------------------------- many clients, curl


def test_a_hundred_clients_at_once_each_get_their_own_response(http_url: str) -> None:
    def post_one(number: int) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection(urlsplit(http_url).netloc, timeout=300)
        body = json.dumps({"features": {**PASSENGER, "Age": number % 80}, "prediction_id": f"http-{number}"})
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read()).get("prediction_id", ""), f"http-{number}"

    with ThreadPoolExecutor(100) as clients:
        outcomes = list(clients.map(post_one, range(100)))
    assert [(status, id_ == own) for status, id_, own in outcomes] == [(200, True)] * 100


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_in_tensorflow_servings_documentation(http_url: str) -> None:
    body = json.dumps({"instances": [PASSENGER]})
    command = ["curl", "-s", "-d", body, "-X", "POST", f"{http_url}{MODELS}/titanic:predict"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["predictions"][0]["label"] == "died"
