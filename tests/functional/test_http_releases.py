"""The HTTP API on the local stack while releases are published and rolled back, and while functions fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from builders import member, sources
from driving import copy_project
from memory import SLOTS
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.local.lambdas.pool import FunctionCode
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.canary import promote_canary
from stepensemble.publishing.publish import publish
from stepensemble.publishing.rollback import roll_back
from stepensemble.serving.servables import version_of

MODELS = "/v1/models"
ROW = {"instances": [{"x": 1.0}]}
FAULTY = """
def handler(event, context):
    fault, message = event["payload"]["metadata"]["fault"]
    raise type(fault, (Exception,), {})(message)
"""
"""A Normalize that raises the error that the payload's metadata names; on AWS, Lambda itself raises some of these."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack with nothing published."""
    project = copy_project(tmp_path_factory.mktemp("releases"))
    with LocalStack.start(project, LocalStackOptions(account="666666666666", tensorflow=False)) as local:
        yield local


@pytest.fixture
def url(started: LocalStack) -> str:
    assert started.http is not None
    return started.http


@pytest.fixture
def opened(started: LocalStack) -> Stack:
    return local_stack(started.name, started.endpoint)


def post_predict(url: str, place: str = "", name: str = "halves") -> requests.Response:
    return requests.post(f"{url}{MODELS}/{name}{place}:predict", json=ROW, timeout=60)


def listed(url: str) -> list[str]:
    status = requests.get(f"{url}{MODELS}/halves", timeout=60).json()
    return [one["version"] for one in status["model_version_status"]]


def test_before_anything_is_published_the_endpoint_states_when_to_retry(url: str) -> None:
    responses = [
        requests.get(f"{url}/health", timeout=60),
        requests.get(f"{url}{MODELS}/halves", timeout=60),
        requests.post(f"{url}/predict", json={"features": {"x": 1.0}}, timeout=60),
        post_predict(url),
    ]
    for response in responses:
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert "nothing is published here yet" in response.text


def test_versions_and_labels_follow_the_canary_until_it_is_promoted_and_rolled_back(
    url: str, opened: Stack, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = sources(tmp_path / "first", member("half"))
    second = sources(tmp_path / "second", member("half"), member("other"))
    old, new = (str(version_of(one.digest)) for one in (first, second))

    ensure_published(opened, first, notify=lambda _: None)
    assert post_predict(url).headers["x-release"] == first.digest
    assert listed(url) == [old]
    rejected = post_predict(url, "/labels/canary")
    assert (rejected.status_code, rejected.json()) == (400, {"error": "Unrecognized servable version label: canary"})

    publish(second, opened.releases, SLOTS, canary=50)
    for place in ("/labels/canary", f"/versions/{new}"):
        response = post_predict(url, place)
        assert (response.headers["x-release"], response.json()) == (second.digest, {"predictions": [2.5]})
        assert post_predict(url, place, "other").json() == {"predictions": [2.5]}  # a member that only the canary has
        described = requests.get(f"{url}{MODELS}/other{place}/metadata", timeout=60).json()
        assert described["model_spec"]["version"] == new
    for place in ("/labels/stable", f"/versions/{old}"):
        assert post_predict(url, place).headers["x-release"] == first.digest
        assert post_predict(url, place, "other").status_code == 404
    assert listed(url) == [old, new]
    assert {post_predict(url).headers["x-release"] for _ in range(20)} == {first.digest, second.digest}

    promote_canary(opened.releases)
    wait_for_pointers(url, new)
    assert {post_predict(url, place).headers["x-release"] for place in ("", "/labels/stable", f"/versions/{new}")} == {
        second.digest
    }
    gone = post_predict(url, f"/versions/{old}")
    assert (gone.status_code, gone.json()) == (
        404,
        {"error": f"Servable not found for request: Specific(halves, {old})"},
    )
    assert post_predict(url, "/labels/canary").status_code == 400

    roll_back(opened.releases, SLOTS)
    wait_for_pointers(url, old)
    assert post_predict(url, "/labels/stable").headers["x-release"] == first.digest


def wait_for_pointers(url: str, version: str) -> None:
    """Wait until the cached pointer expires, after three seconds; until then the old release predicts."""
    while listed(url) != [version]:
        assert post_predict(url).status_code == 200


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP API of a stack whose Normalize fails as the payload states."""
    project = copy_project(tmp_path_factory.mktemp("faulty"))
    folder = tmp_path_factory.mktemp("code")
    (folder / "app.py").write_text(FAULTY)
    code = {"NormalizeFunction": FunctionCode(folder)}
    with LocalStack.start(project, LocalStackOptions(account="555555555555", tensorflow=False, code=code)) as local:
        read = sources(tmp_path_factory.mktemp("models"), member("half"))
        ensure_published(local_stack(local.name, local.endpoint), read, notify=lambda _: None)
        assert local.http is not None
        yield local.http


@pytest.mark.parametrize(
    ("fault", "status", "retry"),
    [
        ("Lambda.TooManyRequestsException", 429, "1"),
        ("Lambda.ServiceException", 503, "2"),
        ("StorageUnavailable", 503, "2"),
        ("KeyError", 500, None),
    ],
)
def test_a_temporary_failure_states_when_to_retry_and_a_lasting_one_has_no_message(
    faulty: str, fault: str, status: int, retry: str | None
) -> None:
    body: dict[str, Any] = {"features": {"x": 1.0}, "metadata": {"fault": [fault, "what went wrong"]}}
    response = requests.post(f"{faulty}/predict", json=body, timeout=60)
    assert (response.status_code, response.headers.get("retry-after")) == (status, retry)
    # This project's errors are written for clients.
    assert ("what went wrong" in response.text) == (fault == "StorageUnavailable")
    assert "Traceback" not in response.text
    assert "app.py" not in response.text
