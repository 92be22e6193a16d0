"""Functions behave, fail and are reported as on Lambda."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stepensemble.local.lambdas.pool import FunctionCode, FunctionMissing, FunctionPool, LocalFunction, PoolSettings

TOY = Path(__file__).with_name("toy")
CONCURRENCY = 3
Call = Callable[..., tuple[str | None, Any]]


def define(name: str, **changes: Any) -> LocalFunction:
    settings: dict[str, Any] = {
        "logical_id": name.capitalize(),
        "name": name,
        "arn": f"arn:aws:lambda:us-east-1:123456789012:function:{name}",
        "handler": "app.handler",
        "code": "functions/commands",
        "timeout": 10,
        "memory": 128,
        "environment": {"GREETING": "hello"},
        "log_group": "/toy",
        "log_format": "Text",
        "log_level": "",
    }
    return LocalFunction(**settings | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("functions")


def surround(folder: Path, code: dict[str, FunctionCode] | None = None) -> PoolSettings:
    return PoolSettings(
        project=TOY,
        logs=folder / "logs",
        scratch=folder,
        endpoint="http://127.0.0.1:9",
        region="us-east-1",
        account="123456789012",
        concurrency=CONCURRENCY,
        code=code or {},
    )


@pytest.fixture(scope="module", params=["awslambdaric", "portable"])
def pool(request: pytest.FixtureRequest, folder: Path) -> Iterator[FunctionPool]:
    """All functions twice: by AWS's runtime client, and by the one for other systems."""
    portable = {} if request.param == "awslambdaric" else {"STEPENSEMBLE_PORTABLE_RUNTIME": "1"}
    if not portable and sys.platform != "linux":
        pytest.skip("awslambdaric is for Linux")
    environment = {"GREETING": "hello", **portable}
    with FunctionPool(surround(folder)) as made:
        made.define(
            [
                define("echo", environment=environment),
                define("slow", environment=environment),
                define("hasty", timeout=1, environment=environment),
                define("broken", code="functions/broken", environment=environment),
                define("lost", handler="app.nothing", environment=environment),
                define("nowhere", code="functions/nowhere", environment=environment),
            ]
        )
        yield made


@pytest.fixture
def call(pool: FunctionPool) -> Call:
    def invoke(name: str, /, **event: Any) -> tuple[str | None, Any]:
        result = pool.invoke(name, json.dumps(event).encode())
        return result.error, json.loads(result.payload)

    return invoke


def busy(pool: FunctionPool, name: str) -> list[int]:
    return next(status.busy for status in pool.describe() if status.name == name)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_a_handler_gets_lambdas_context_and_variables(call: Call):
    error, payload = call("echo", environment=True)

    assert error is None
    assert payload["function"] == "echo"
    assert payload["arn"].endswith(":function:echo")
    assert 8_000 < payload["remaining"] <= 10_000
    environment = payload["environment"]
    assert environment["GREETING"] == "hello"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "echo"
    assert environment["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "128"
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    assert environment["_HANDLER"] == "app.handler"
    assert environment["_X_AMZN_TRACE_ID"].startswith("Root=1-")


def test_functions_do_not_see_the_variables_of_the_user(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "MY_SECRET"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "leaked")

    with FunctionPool(surround(folder)) as pool:
        pool.define([define("echo")])
        environment = json.loads(pool.invoke("echo", b'{"environment": true}').payload)["environment"]

    assert "leaked" not in environment.values()


def test_a_process_handles_the_next_invocation_too(call: Call):
    assert call("echo")[1]["pid"] == call("echo")[1]["pid"]


def test_functions_are_found_by_name_and_arn(pool: FunctionPool):
    arn = "arn:aws:lambda:us-east-1:123456789012:function:echo"
    for name in ("echo", "echo:$LATEST", arn, f"{arn}:$LATEST", "123456789012:function:echo"):
        assert pool.has(name)
        assert pool.invoke(name, b"{}").error is None
    with pytest.raises(FunctionMissing):
        pool.invoke("missing", b"{}")


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ({"exit": 3}, "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ({"exit": 0}, "Runtime.ExitError", "Runtime exited without providing a reason"),
        ({"signal": "SIGKILL"}, "Runtime.ExitError", "Runtime exited with error: signal: killed"),
        ({"signal": "SIGSEGV"}, "Runtime.ExitError", "Runtime exited with error: signal: segmentation fault"),
    ],
)
def test_a_crash_is_reported_and_the_process_replaced(call: Call, event: dict[str, Any], kind: str, message: str):
    error, payload = call("echo", **event)

    assert error == "Unhandled"
    assert payload["errorType"] == kind
    assert payload["errorMessage"].startswith("RequestId: ")
    assert payload["errorMessage"].endswith(f" Error: {message}")
    assert call("echo")[0] is None


def test_a_raised_error_is_the_result_and_the_process_stays(call: Call):
    pid = call("echo")[1]["pid"]

    error, payload = call("echo", **{"raise": "no such thing"})

    assert error == "Unhandled"
    assert (payload["errorType"], payload["errorMessage"]) == ("ValueError", "no such thing")
    assert "app.py" in "".join(payload["stackTrace"])
    assert call("echo")[1]["pid"] == pid


def test_a_timeout_is_reported_and_the_process_replaced(call: Call):
    pid = call("hasty")[1]["pid"]

    error, payload = call("hasty", sleep=5)

    assert error == "Unhandled"
    assert payload["errorType"] == "Sandbox.Timedout"
    assert payload["errorMessage"].endswith(" Error: Task timed out after 1.00 seconds")
    assert call("hasty")[1]["pid"] != pid


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_exceeds_its_memory_is_killed(call: Call):
    error, payload = call("echo", allocate=300)

    assert error == "Unhandled"
    assert payload["errorType"] == "Runtime.OutOfMemory"
    assert payload["errorMessage"].endswith("Runtime exited with error: signal: killed")
    assert call("echo")[0] is None


def test_a_failed_import_is_reported_every_time(call: Call):
    for _ in range(2):
        error, payload = call("broken")
        assert error == "Unhandled"
        assert payload["errorType"] == "Runtime.ImportModuleError"
        assert "there_is_no_such_module" in payload["errorMessage"]


def test_a_missing_handler_is_reported(call: Call):
    assert call("lost")[1]["errorType"] == "Runtime.HandlerNotFound"


def test_missing_code_is_reported_every_time(call: Call):
    for _ in range(2):
        error, payload = call("nowhere")
        assert error == "Unhandled"
        assert payload["errorType"] == "Runtime.InvalidEntrypoint"
        assert "functions/nowhere" in payload["errorMessage"]


def test_a_response_beyond_six_megabytes_is_an_error(call: Call):
    limit = 6 * 1024 * 1024 + 100
    assert len(call("echo", length=limit - 2)[1]) == limit - 2

    error, payload = call("echo", length=limit)

    assert error == "Unhandled"
    assert payload["errorType"] == "Function.ResponseSizeTooLarge"
    assert f"{limit + 2} bytes" in payload["errorMessage"]
    assert call("echo")[0] is None


def test_slow_invocations_run_in_parallel_up_to_the_limit_and_then_wait(call: Call, pool: FunctionPool):
    call("slow")
    with ThreadPoolExecutor(CONCURRENCY + 1) as threads:
        results = [threads.submit(call, "slow", sleep=2) for _ in range(CONCURRENCY + 1)]
        wait_for(lambda: len(busy(pool, "slow")) == CONCURRENCY)
        pids = [result.result()[1]["pid"] for result in results]

    assert len(set(pids)) == CONCURRENCY


def test_a_killed_process_is_reported(call: Call, pool: FunctionPool):
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(call, "echo", sleep=8)
        (pid,) = wait_for(lambda: busy(pool, "echo"))
        os.kill(pid, signal.SIGKILL)
        error, payload = result.result()

    assert error == "Unhandled"
    assert payload["errorMessage"].endswith("signal: killed")


def test_output_is_logged(call: Call, folder: Path):
    call("echo", print="a line of its own")

    wait_for(lambda: "a line of its own" in (folder / "logs" / "echo.log").read_text())


def test_code_and_layers_can_be_given(folder: Path, tmp_path: Path):
    code, layer = tmp_path / "code", tmp_path / "layer"
    (layer / "stepensemble").mkdir(parents=True)
    (layer / "stepensemble" / "__init__.py").write_text("origin = 'the layer'\n")
    code.mkdir()
    (code / "app.py").write_text(
        "import stepensemble\n\ndef handler(event, context):\n    return stepensemble.origin\n"
    )

    with FunctionPool(surround(folder, {"Echo": FunctionCode(code, (layer,))})) as pool:
        pool.define([define("echo")])
        assert json.loads(pool.invoke("echo", b"{}").payload) == "the layer"

    assert not list(tmp_path.rglob("__pycache__"))


def test_defining_again_replaces_only_what_changed(folder: Path):
    with FunctionPool(surround(folder)) as pool:
        pool.define([define("echo"), define("other")])
        echo, other = (json.loads(pool.invoke(name, b"{}").payload)["pid"] for name in ("echo", "other"))
        pool.define([define("echo"), define("other", timeout=7)])

        assert json.loads(pool.invoke("echo", b"{}").payload)["pid"] == echo
        assert json.loads(pool.invoke("other", b"{}").payload)["pid"] != other


def test_prestarted_processes_handle_the_first_invocation(folder: Path):
    with FunctionPool(surround(folder)) as pool:
        pool.define([define("echo"), define("other")])
        pool.prestart(["echo", "other"])
        wait_for(lambda: all(status.pids for status in pool.describe()))
        pids = {status.name: status.pids for status in pool.describe()}

        assert [json.loads(pool.invoke("echo", b"{}").payload)["pid"]] == pids["echo"]


def test_closing_ends_processes_their_children_and_waiting_invocations(folder: Path):
    pool = FunctionPool(surround(folder))
    pool.define([define("echo")])
    child = json.loads(pool.invoke("echo", b'{"spawn": true}').payload)
    (pid,) = pool.describe()[0].pids
    thread = threading.Thread(target=pool.invoke, args=("echo", b'{"sleep": 30}'))
    thread.start()
    wait_for(lambda: busy(pool, "echo"))

    pool.close()
    thread.join(20)

    assert not thread.is_alive()  # although its function sleeps longer
    for process in (pid, child):
        wait_for(lambda process=process: not alive(process))


def alive(pid: int) -> bool:
    """Return whether a process runs; zombies do not, and may stay in a container if their parent was killed."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
