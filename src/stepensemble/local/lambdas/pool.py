"""The template's functions, each with the processes that run its handler.

A process handles one invocation at a time, and lives until the stack is closed. More processes give more concurrency,
up to a limit; beyond it invocations wait. Everything runs on one event loop in a thread of its own. The methods of
`FunctionPool` may be called from any other thread.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
from msgspec import Struct

import stepensemble
from stepensemble.local.lambdas.process import FunctionProcess, InvocationResult, ProcessSettings, deadline_ms
from stepensemble.local.lambdas.runtime_api import Invocation

GROW_SECONDS = 0.05
"""How long an invocation waits for one of its function's busy processes before another is started."""

MEMORY_CHECK_SECONDS = 0.1
LOG_BYTES = 5 * 1024 * 1024
"""A larger log is renamed when the stack starts."""

INHERITED = ("DYLD_LIBRARY_PATH", "HOME", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "USER")
"""Environment variables that a function inherits; no credentials and no AWS configuration."""

T = TypeVar("T")


class LocalFunction(Struct, frozen=True):
    """A function as the template defines it, with everything resolved.

    Attributes:
        code: its folder, relative to the template's.
        timeout: seconds.
        memory: MB.
        log_group: in CloudWatch; here its name only.
        log_format: Text or JSON.
    """

    logical_id: str
    name: str
    arn: str
    handler: str
    code: str
    timeout: int
    memory: int
    environment: dict[str, str]
    log_group: str
    log_format: str
    log_level: str


@dataclass(frozen=True, slots=True)
class FunctionCode:
    """Where a function's code is, if not where the template names it; for instance a built artifact.

    Attributes:
        folder: with the module of the handler.
        layers: folders for PYTHONPATH, before the environment's own packages.
    """

    folder: Path
    layers: tuple[Path, ...] = ()


class FunctionStatus(Struct, frozen=True):
    """A function's processes at one moment."""

    name: str
    logical_id: str
    pids: list[int]
    busy: list[int]
    waiting: int


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What all functions of a stack have in common.

    Attributes:
        project: the template's folder.
        logs: folder for what functions print.
        scratch: folder for what they write to /tmp.
        code: by logical id, instead of what the template names.
        concurrency: the most processes of a function.
    """

    project: Path
    logs: Path
    scratch: Path
    endpoint: str
    region: str
    account: str
    concurrency: int
    code: Mapping[str, FunctionCode]


class FunctionMissing(Exception):
    """There is no function of that name."""


class PoolClosed(Exception):
    """The stack has ended, or ended while an invocation was waiting."""


class FunctionPool:
    """All functions of a stack. Close it, or use it as a context manager; then all processes end."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._lifeline, self._lifeline_writer = os.pipe()
        self._functions: dict[str, _Function] = {}
        self._closed = asyncio.Event()
        self._processors = os.cpu_count() or 1
        self._starts = asyncio.Semaphore(max(1, self._processors - 1))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="functions", daemon=True)
        self._thread.start()

    def __enter__(self) -> FunctionPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def define(self, functions: Iterable[LocalFunction]) -> None:
        """Set the functions. A function that has not changed keeps its processes."""
        self._wait(self._define(list(functions)))

    def prestart(self, names: Iterable[str]) -> None:
        """Start a process of each of these functions that has none; return at once."""
        functions = [self._find(name) for name in names]
        self._wait(_await_each(function.prestart for function in functions))

    def use_all_processors(self) -> None:
        """Start as many processes at once as there are processors; until then one processor is left to the stack."""
        if self._processors > 1:
            self._loop.call_soon_threadsafe(self._starts.release)

    def invoke(self, name: str, payload: bytes, client_context: str | None = None) -> InvocationResult:
        """Invoke a function (by name or ARN) and wait for its result.

        Raises:
            FunctionMissing: there is no such function.
            PoolClosed: the pool was closed before the invocation began.
        """
        return self._wait(self._find(name).invoke(payload, client_context))

    def describe(self) -> list[FunctionStatus]:
        """Return every function's processes."""
        return self._wait(_collect([function.describe for function in self._functions.values()]))

    @property
    def definitions(self) -> list[LocalFunction]:
        """The functions."""
        return [function.definition for function in self._functions.values()]

    def used(self) -> set[str]:
        """Return the logical ids of the functions that have been invoked."""
        return {function.definition.logical_id for function in self._functions.values() if function.used}

    def has(self, name: str) -> bool:
        """Return whether there is a function of this name or ARN."""
        return _plain_name(name) in self._functions

    def close(self) -> None:
        """End all processes."""
        if not self._thread.is_alive():
            return
        self._wait(self._close())
        self._thread.join()
        os.close(self._lifeline_writer)
        os.close(self._lifeline)

    def _find(self, name: str) -> _Function:
        try:
            return self._functions[_plain_name(name)]
        except KeyError:
            raise FunctionMissing(name) from None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._watch_memory())
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._thread.is_alive():
            work.close()
            raise PoolClosed
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except CancelledError:
            raise PoolClosed from None

    async def _define(self, functions: Sequence[LocalFunction]) -> None:
        defined = {function.name: function for function in functions}
        for name, function in list(self._functions.items()):
            if defined.get(name) != function.definition:
                await self._functions.pop(name).close()
        for name, definition in defined.items():
            if name not in self._functions:
                process_settings = _configure_process(definition, self._settings, self._lifeline)
                self._functions[name] = _Function(
                    definition, process_settings, self._settings.concurrency, self._starts
                )

    async def _close(self) -> None:
        await asyncio.gather(*(function.close() for function in self._functions.values()))
        self._closed.set()

    async def _watch_memory(self) -> None:
        """Kill processes that exceed their function's memory, until the pool is closed."""
        while not self._closed.is_set():
            for function in self._functions.values():
                function.enforce_memory()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), MEMORY_CHECK_SECONDS)


class _Function:
    """One function on the event loop. As many processes of a stack start at once as there are processors."""

    def __init__(
        self, definition: LocalFunction, process_settings: ProcessSettings, concurrency: int, starts: asyncio.Semaphore
    ) -> None:
        self.definition = definition
        self._settings = process_settings
        self._concurrency = concurrency
        self._starts = starts
        self._workers: dict[FunctionProcess, asyncio.Task[None]] = {}
        self._idle: list[FunctionProcess] = []
        self._waiting: deque[tuple[str, asyncio.Future[FunctionProcess]]] = deque()
        self._closed = False
        self.used = False

    async def invoke(self, payload: bytes, client_context: str | None) -> InvocationResult:
        self.used = True
        request_id = str(uuid4())
        try:
            worker = await self._acquire(request_id)
        except _StartFailed as failure:
            return failure.result
        invocation = Invocation(
            request_id=request_id,
            payload=payload,
            deadline_ms=deadline_ms(self.definition.timeout),
            function_arn=self.definition.arn,
            trace_id=f"Root=1-00000000-{uuid4().hex[:24]};Sampled=0",
            client_context=client_context,
        )
        return await worker.handle(invocation, self.definition.timeout)

    async def prestart(self) -> None:
        if not self._workers:
            self._start_worker()

    async def describe(self) -> FunctionStatus:
        running = [worker for worker in self._workers if worker.pid is not None and worker.alive]
        return FunctionStatus(
            name=self.definition.name,
            logical_id=self.definition.logical_id,
            pids=[worker.pid for worker in running if worker.pid is not None],
            busy=[worker.pid for worker in running if worker.pid is not None and worker.busy],
            waiting=len(self._waiting),
        )

    async def close(self) -> None:
        self._closed = True
        for _, turn in self._waiting:
            turn.cancel()
        for worker in self._workers:
            worker.kill()
        await asyncio.gather(*self._workers.values(), return_exceptions=True)

    def enforce_memory(self) -> None:
        for worker in self._workers:
            worker.enforce_memory()

    async def _acquire(self, request_id: str) -> FunctionProcess:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
        turn: asyncio.Future[FunctionProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append((request_id, turn))
        if self._workers:
            asyncio.get_running_loop().call_later(GROW_SECONDS, self._grow)
        else:
            self._grow()
        return await turn

    def _grow(self) -> None:
        """Start a process for every invocation that waits and for which none is starting."""
        starting = sum(not worker.started for worker in self._workers)
        for _ in range(min(len(self._waiting) - starting, self._concurrency - len(self._workers))):
            self._start_worker()

    def _start_worker(self) -> None:
        worker = FunctionProcess(self._settings, self._take_idle, self._take_end)
        self._workers[worker] = asyncio.get_running_loop().create_task(self._run(worker))

    async def _run(self, worker: FunctionProcess) -> None:
        async with self._starts:
            # Meanwhile other processes may have handled the invocations it was meant for.
            if self._closed or not (self._waiting or len(self._workers) == 1):
                del self._workers[worker]
                return
            life = asyncio.get_running_loop().create_task(worker.live())
            await worker.ready.wait()
        await life

    def _take_idle(self, worker: FunctionProcess) -> None:
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    def _take_end(self, worker: FunctionProcess) -> None:
        self._workers.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)
        if not worker.started and self._waiting and not self._closed:
            # As on Lambda, a failed start is the result of the invocation it was made for.
            request_id, turn = self._waiting.popleft()
            turn.set_exception(_StartFailed(worker.explain_end(request_id)))
        if not self._closed:
            self._grow()


class _StartFailed(Exception):
    def __init__(self, result: InvocationResult) -> None:
        super().__init__(result)
        self.result = result


async def _await_each(starts: Iterable[Any]) -> None:
    for start in starts:
        await start()


async def _collect(calls: Iterable[Any]) -> list[Any]:
    return [await call() for call in calls]


def _plain_name(name: str) -> str:
    """Return a function's name, given its name or its partial or full ARN, with or without a qualifier."""
    parts = name.split(":")
    if "function" in parts:
        return parts[parts.index("function") + 1]
    return parts[0]


def _configure_process(function: LocalFunction, settings: PoolSettings, lifeline: int) -> ProcessSettings:
    code = settings.code.get(function.logical_id)
    folder = (settings.project / function.code if code is None else code.folder).resolve()
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / f"{function.name}.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return ProcessSettings(
        handler=function.handler,
        folder=folder,
        environment=_environment(function, settings, folder, code),
        lifeline=lifeline,
        log=log,
        memory_bytes=function.memory * 1024 * 1024,
    )


def _environment(
    function: LocalFunction, settings: PoolSettings, folder: Path, code: FunctionCode | None
) -> dict[str, str]:
    """Return a few inherited variables, overridden by those that Lambda sets, overridden by the template's."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # Built code contains its packages; code in the project imports ours from where this process did.
    paths = (folder, Path(stepensemble.__file__).parents[1]) if code is None else (folder, *code.layers)
    lambda_variables = {
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": str(settings.scratch),
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths),
        "LAMBDA_TASK_ROOT": str(folder),
        "_HANDLER": function.handler,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": f"local/[$LATEST]{uuid4().hex}",
        "AWS_LAMBDA_LOG_FORMAT": function.log_format,
        "AWS_LAMBDA_LOG_LEVEL": function.log_level,
        "AWS_REGION": settings.region,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_SESSION_TOKEN": "local",
        "AWS_ENDPOINT_URL": settings.endpoint,
        # Without it boto3 sends StartSyncExecution to "sync-127.0.0.1".
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        # The user's configuration may name another endpoint or a profile.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    }
    if code is not None:
        lambda_variables["PYTHONDONTWRITEBYTECODE"] = "1"  # built code stays unchanged
    return inherited | lambda_variables | function.environment


def encode_status(statuses: Sequence[FunctionStatus]) -> bytes:
    """Return functions' processes as JSON."""
    return msgspec.json.encode(statuses)
