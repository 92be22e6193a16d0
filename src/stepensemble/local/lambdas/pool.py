"""The template's functions, each with the processes that run its handler.

One invocation at a time in a process and more processes for more concurrency, up to a limit; beyond it calls wait. All
of it lives on one event loop in a thread of its own; the methods of `FunctionPool` may be called from any other thread.
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
from stepensemble.local.lambdas.process import Answer, Launch, Worker, deadline_ms
from stepensemble.local.lambdas.runtime_api import Invocation

PATIENCE_SECONDS = 0.05
"""How long a call waits for one of its function's busy processes before another is started."""

MEMORY_CHECK_SECONDS = 0.1
LOG_BYTES = 5 * 1024 * 1024
"""A log larger than that is moved aside when the stack starts."""

INHERITED = ("DYLD_LIBRARY_PATH", "HOME", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "USER")
"""The caller's variables that a function sees; no credentials, no AWS configuration."""

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
class Code:
    """Where a function's code lies, if not where the template says: a built artifact, say.

    Attributes:
        folder: with the module of the handler.
        layers: folders for PYTHONPATH, in front of the environment's own packages.
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
class Surroundings:
    """What all functions of a stack share.

    Attributes:
        project: the template's folder.
        logs: folder for what functions print.
        scratch: folder for what they leave in /tmp.
        code: by logical id, instead of what the template says.
        concurrency: processes a function may have.
    """

    project: Path
    logs: Path
    scratch: Path
    endpoint: str
    region: str
    account: str
    concurrency: int
    code: Mapping[str, Code]


class FunctionMissing(Exception):
    """There is no function of that name."""


class PoolClosed(Exception):
    """The stack has ended, or ended while a call was waiting."""


class FunctionPool:
    """All functions of a stack. Close it, or use it as a context manager, and no process is left."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._lifeline, self._hold = os.pipe()
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
        """Say which functions there are. One that is as it was before keeps its processes."""
        self._wait(self._define(list(functions)))

    def prestart(self, names: Iterable[str]) -> None:
        """Start a process of each of these functions that has none; returns at once."""
        functions = [self._find(name) for name in names]
        self._wait(_each(function.prestart for function in functions))

    def take_all_processors(self) -> None:
        """Start as many processes at once as there are processors; until then one is left to the stack that starts."""
        if self._processors > 1:
            self._loop.call_soon_threadsafe(self._starts.release)

    def invoke(self, name: str, payload: bytes, client_context: str | None = None) -> Answer:
        """Call a function (by name or ARN) and wait for what it answers.

        Raises:
            FunctionMissing: there is no such function.
            PoolClosed: the pool was closed before it was the call's turn.
        """
        return self._wait(self._find(name).invoke(payload, client_context))

    def describe(self) -> list[FunctionStatus]:
        """Return every function's processes."""
        return self._wait(_gather([function.describe for function in self._functions.values()]))

    @property
    def definitions(self) -> list[LocalFunction]:
        """The functions that there are."""
        return [function.definition for function in self._functions.values()]

    def used(self) -> set[str]:
        """Return the logical ids of the functions that have been called."""
        return {function.definition.logical_id for function in self._functions.values() if function.used}

    def knows(self, name: str) -> bool:
        """Say whether there is a function of this name or ARN."""
        return _plain_name(name) in self._functions

    def close(self) -> None:
        """End all processes."""
        if not self._thread.is_alive():
            return
        self._wait(self._close())
        self._thread.join()
        os.close(self._hold)
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
                launch = _launch(definition, self._surroundings, self._lifeline)
                self._functions[name] = _Function(definition, launch, self._surroundings.concurrency, self._starts)

    async def _close(self) -> None:
        await asyncio.gather(*(function.close() for function in self._functions.values()))
        self._closed.set()

    async def _watch_memory(self) -> None:
        """Kill processes that outgrow their function, until the pool is closed."""
        while not self._closed.is_set():
            for function in self._functions.values():
                function.enforce_memory()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), MEMORY_CHECK_SECONDS)


class _Function:
    """One function on the event loop. As many processes of a stack start at once as there are processors."""

    def __init__(self, definition: LocalFunction, launch: Launch, concurrency: int, starts: asyncio.Semaphore) -> None:
        self.definition = definition
        self._launch = launch
        self._concurrency = concurrency
        self._starts = starts
        self._workers: dict[Worker, asyncio.Task[None]] = {}
        self._idle: list[Worker] = []
        self._waiting: deque[tuple[str, asyncio.Future[Worker]]] = deque()
        self._closed = False
        self.used = False

    async def invoke(self, payload: bytes, client_context: str | None) -> Answer:
        self.used = True
        request_id = str(uuid4())
        try:
            worker = await self._acquire(request_id)
        except _StartFailed as failure:
            return failure.answer
        invocation = Invocation(
            request_id=request_id,
            payload=payload,
            deadline_ms=deadline_ms(self.definition.timeout),
            function_arn=self.definition.arn,
            trace_id=f"Root=1-00000000-{uuid4().hex[:24]};Sampled=0",
            client_context=client_context,
        )
        return await worker.answer(invocation, self.definition.timeout)

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

    async def _acquire(self, request_id: str) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
        turn: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append((request_id, turn))
        if self._workers:
            asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._grow)
        else:
            self._grow()
        return await turn

    def _grow(self) -> None:
        """Start as many processes as calls wait in vain."""
        starting = sum(not worker.started for worker in self._workers)
        for _ in range(min(len(self._waiting) - starting, self._concurrency - len(self._workers))):
            self._start_worker()

    def _start_worker(self) -> None:
        worker = Worker(self._launch, self._take_idle, self._take_end)
        self._workers[worker] = asyncio.get_running_loop().create_task(self._run(worker))

    async def _run(self, worker: Worker) -> None:
        async with self._starts:
            # By its turn, other processes may have answered the calls it was meant for.
            if self._closed or not (self._waiting or len(self._workers) == 1):
                del self._workers[worker]
                return
            life = asyncio.get_running_loop().create_task(worker.live())
            await worker.ready.wait()
        await life

    def _take_idle(self, worker: Worker) -> None:
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    def _take_end(self, worker: Worker) -> None:
        self._workers.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)
        if not worker.started and self._waiting and not self._closed:
            # As on Lambda, a start that failed is the answer to the call it was made for.
            request_id, turn = self._waiting.popleft()
            turn.set_exception(_StartFailed(worker.explain_end(request_id)))
        if not self._closed:
            self._grow()


class _StartFailed(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


async def _each(starts: Iterable[Any]) -> None:
    for start in starts:
        await start()


async def _gather(calls: Iterable[Any]) -> list[Any]:
    return [await call() for call in calls]


def _plain_name(name: str) -> str:
    """Return a function's name from its name, partial or full ARN, with or without a qualifier."""
    parts = name.split(":")
    if "function" in parts:
        return parts[parts.index("function") + 1]
    return parts[0]


def _launch(function: LocalFunction, surroundings: Surroundings, lifeline: int) -> Launch:
    code = surroundings.code.get(function.logical_id)
    folder = (surroundings.project / function.code if code is None else code.folder).resolve()
    surroundings.logs.mkdir(parents=True, exist_ok=True)
    log = surroundings.logs / f"{function.name}.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return Launch(
        handler=function.handler,
        folder=folder,
        environment=_environment(function, surroundings, folder, code),
        lifeline=lifeline,
        log=log,
        memory_bytes=function.memory * 1024 * 1024,
    )


def _environment(
    function: LocalFunction, surroundings: Surroundings, folder: Path, code: Code | None
) -> dict[str, str]:
    """The variables Lambda sets, over a few of the caller's, and the template's own over these."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # Built code brings its packages; code in the tree finds ours where this process found it.
    paths = (folder, Path(stepensemble.__file__).parents[1]) if code is None else (folder, *code.layers)
    given = {
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": str(surroundings.scratch),
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
        "AWS_REGION": surroundings.region,
        "AWS_DEFAULT_REGION": surroundings.region,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_SESSION_TOKEN": "local",
        "AWS_ENDPOINT_URL": surroundings.endpoint,
        # Or boto3 looks for StartSyncExecution at "sync-127.0.0.1".
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        # Not the caller's configuration, which may name another endpoint or a profile.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    }
    if code is not None:
        given["PYTHONDONTWRITEBYTECODE"] = "1"  # what was built stays as it was built
    return inherited | given | function.environment


def encode_status(statuses: Sequence[FunctionStatus]) -> bytes:
    """Write functions' processes as JSON."""
    return msgspec.json.encode(statuses)
