"""The built functions run on the local stack, and alone under the emulator that AWS ships for Lambda's runtimes."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from driving import predict
from expected_events import without_volatile
from memory import GIBIBYTE
from stepensemble import Ensemble
from stepensemble.batch.documents import Options
from stepensemble.batch.documents import Request as BatchRequest
from stepensemble.cli.batch_runs import follow_run, start_run
from stepensemble.cli.stacks import Stack
from stepensemble.core.payload import Pointer
from stepensemble.handlers.current_release import CurrentRelease
from stepensemble.handlers.prediction.model_cache import ModelCache
from stepensemble.handlers.prediction.normalize import Normalizer
from stepensemble.handlers.prediction.score import Scorer
from stepensemble.local.stack import LocalStack

PROVIDED = ("awslambdaric", "simplejson", "snapshot-restore-py")
EXECUTION = {"id": "arn:aws:states:us-east-1:123456789012:execution:ensemble:built", "name": "built"}

Invoke = Callable[[Mapping[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def passengers(project: Path) -> dict[str, Any]:
    return dict(json.loads((project / "events" / "passengers.json").read_text()))


def test_built_functions_predict_as_the_ensemble_in_process(
    stack: Stack, local: LocalStack, project: Path, layers: tuple[Path, ...], passengers: dict[str, Any]
) -> None:
    expected = Ensemble.load(project / "models" / "manifest.json").predict(passengers)
    assert without_volatile(predict(stack, passengers)) == without_volatile(expected)
    if sys.platform == "linux":
        pids = [pid for function in local.functions for pid in function.pids]
        mapped = [Path(f"/proc/{pid}/maps").read_text() for pid in pids]
        runtimes = [each for each in mapped if "ai_edge_litert" in each]
        assert len(runtimes) == len(expected["members"])
        assert all(str(layers[1] / "ai_edge_litert") in each for each in runtimes)


def test_a_batch_of_built_functions_writes_results_and_a_report(stack: Stack, project: Path) -> None:
    passengers = stack.data.write("inbox/passengers.csv", (project / "examples/titanic/passengers.csv").read_bytes())
    request = BatchRequest(dataset=passengers.s3, date="2026-03-01", options=Options(label="Survived"))
    followed = follow_run(stack, start_run(stack, request))
    assert followed.result is not None, followed.cause
    assert (followed.result.rows_in, followed.result.rows_out) == (1309, 1309)
    page = stack.data.read(Pointer(followed.result.report).split()[1]).decode()
    assert page.count("<svg") == 4  # classes, probabilities, agreement, calibration


@pytest.mark.parametrize(
    ("function", "modules"),
    [
        ("NormalizeFunction", ["handlers.prediction.normalize", "imaging.decoding"]),
        ("Score1", ["handlers.prediction.score"]),
        ("PlanFunction", ["handlers.batch.plan"]),
        ("NormalizeShardFunction", ["handlers.batch.normalize_shard"]),
        ("AggregateShardFunction", ["handlers.batch.aggregate_shard"]),
        ("SummarizeFunction", ["handlers.batch.summarize", "batch.report.charts"]),
    ],
)
def test_a_functions_layers_hold_what_it_imports(
    layers_of: Callable[[str], tuple[Path, ...]], function: str, modules: list[str]
) -> None:
    # Without -S and -I the environment's packages could be imported, too.
    paths = [str(layer) for layer in layers_of(function)]
    imports = ", ".join(f"stepensemble.{module}" for module in modules)
    code = f"import sys; sys.path += {paths!r}; import {imports}, aws_lambda_powertools"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the emulator is a Linux binary")
def test_built_functions_need_nothing_but_their_layers_and_lambdas_runtime(
    stack: Stack, built_here: Path, layers: tuple[Path, ...], tmp_path: Path, passengers: dict[str, Any]
) -> None:
    prefix = stack.outputs["ScoreFunctionPrefix"]
    normalizer = Normalizer(CurrentRelease(stack.releases, time.monotonic), stack.data, prefix)
    payload = {"payload": passengers, "execution": EXECUTION}
    paths = (*layers, provide_runtime(tmp_path / "runtime"))
    environment = {
        "STAGE": "dev",
        "LOG_LEVEL": "DEBUG",
        "ARTIFACT_BUCKET": stack.outputs["ArtifactBucketName"],
        "DATA_BUCKET": stack.outputs["DataBucketName"],
        "SCORE_FUNCTION_PREFIX": prefix,
        "AWS_ENDPOINT_URL": str(stack.endpoint),
    }

    with emulate(built_here / "NormalizeFunction", paths, environment, tmp_path) as normalize:
        normalized = normalize(payload)
    assert normalized == json.loads(json.dumps(normalizer(payload)))

    scorer = Scorer(ModelCache(stack.releases, GIBIBYTE, lambda: 0), stack.data)
    with emulate(built_here / "Score1", paths, environment, tmp_path) as score:
        for member in normalized["members"]:
            event = {"member": member, "columns": normalized["columns"], "rows": normalized["rows"]}
            output = score(event)
            expected = scorer(event)
            assert (output["id"], output["outputs"]) == (member["id"], expected["outputs"])
            assert output["cold"] is True


def provide_runtime(folder: Path) -> Path:
    """Link what Lambda's Python provides and these functions use: the runtime client, and nothing else."""
    folder.mkdir()
    for name in PROVIDED:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            (folder / top).symlink_to(str(found.locate_file(top)))
    return folder


@contextmanager
def emulate(function: Path, paths: tuple[Path, ...], environment: Mapping[str, str], folder: Path) -> Iterator[Invoke]:
    """Run one function under the emulator, in a Python that sees only these paths."""
    samcli = find_spec("samcli")
    assert samcli is not None
    assert samcli.origin is not None
    emulator = Path(samcli.origin).parent / "local" / "rapid" / "aws-lambda-rie-x86_64"
    address, runtime_api = (f"127.0.0.1:{port}" for port in free_ports(2))
    log = folder / f"{function.name}.log"
    python = [getattr(sys, "_base_executable", sys.executable), "-S", "-P", "-m", "awslambdaric", "app.handler"]
    ports = ["--runtime-interface-emulator-address", address, "--runtime-api-address", runtime_api]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(emulator), *ports, *python],
            cwd=function,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(map(str, (function, *paths))),
                "PYTHONDONTWRITEBYTECODE": "1",
                "LAMBDA_TASK_ROOT": str(function),
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "local",
                "AWS_SECRET_ACCESS_KEY": "local",
                "AWS_LAMBDA_FUNCTION_NAME": function.name,
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
                "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
                **environment,
            },
            stdout=output,
            stderr=output,
            process_group=0,
        )
    try:
        wait_for(address, process, log)
        yield lambda event: invoke(address, event, log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def invoke(address: str, event: Mapping[str, Any], log: Path) -> dict[str, Any]:
    request = Request(f"http://{address}/2015-03-31/functions/function/invocations", json.dumps(event).encode())
    with urlopen(request, timeout=60) as response:  # noqa: S310
        output = json.load(response)
    # The emulator's status is always 200.
    assert "errorType" not in output, f"{output}\n{log.read_text()}"
    return dict(output)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
