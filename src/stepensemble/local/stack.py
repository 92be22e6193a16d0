"""The local stack as a whole: started, described, found and stopped."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from socket import create_server, socket
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from stepensemble.core.errors import LocalStackError
from stepensemble.core.releases.release import digest_of, name_add_on
from stepensemble.local.errors import PortTaken, StackRuns, StateUnwritable
from stepensemble.local.file_permissions import make_private
from stepensemble.local.lambdas.pool import FunctionPool, FunctionStatus, LocalFunction, PoolSettings
from stepensemble.local.options import DEFAULTS, LocalStackOptions
from stepensemble.local.state_database import StateDatabase, copy_database, find_owner, lock_state, remove_database
from stepensemble.local.template import REGION, Blueprint, load_blueprint, write_atomically, write_cache

if TYPE_CHECKING:  # imported once moto is
    from stepensemble.local.http.server import HttpServer

STACK_NAME = "stepensemble-local"
STATE_FOLDER = ".stepensemble"
FIRST_ACCOUNT = 123456789012
"""moto's default account."""

SWITCH_SECONDS = 0.001
HOST = "127.0.0.1"
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

ACCOUNTS: set[str] = set()
"""Accounts of this process's stacks: moto separates stacks by account only."""
ACCOUNTS_LOCK = threading.Lock()


class RunningStack(Struct, frozen=True):
    """A stack that runs in some process and has announced itself."""

    pid: int
    endpoint: str
    name: str


class _FunctionCache(Struct, frozen=True):
    """The functions of the last start, so that their processes can start before moto is imported.

    Attributes:
        digests: of the stacks' blueprints, by stack name.
        templates: digests of what moto created of them, definitions of state machines included.
    """

    digests: dict[str, str]
    templates: dict[str, str]
    account: str
    functions: list[LocalFunction]


@dataclass(frozen=True)
class _StackParts:
    """What is there before moto is: the parts of a stack that is starting.

    Attributes:
        blueprints: by stack name, the base stack first.
        folder: of state, logs and caches.
        listener: the bound socket of the AWS APIs.
        endpoint: its address.
    """

    blueprints: Mapping[str, Blueprint]
    folder: Path
    database: StateDatabase
    pool: FunctionPool
    listener: socket
    endpoint: str
    account: str


class _ServedStack(NamedTuple):
    """The template's outputs, and a sentence for each stored object that cannot be read."""

    outputs: Mapping[str, str]
    damaged: list[str]


@dataclass(frozen=True)
class LocalStack:
    """A stack that runs in this process. Close it, or use it as a context manager, and nothing of it keeps running.

    Attributes:
        endpoint: of every AWS API, for `AWS_ENDPOINT_URL`.
        http: of the HTTP API; None where the template has none.
        name: of the CloudFormation stack.
        outputs: of the template.
        losses: what the state has lost, or what of it cannot be read, a sentence each.
    """

    endpoint: str
    http: str | None
    name: str
    outputs: Mapping[str, str]
    losses: Sequence[str]
    _pool: FunctionPool
    _exits: ExitStack

    @classmethod
    def start(cls, project: Path, options: LocalStackOptions = DEFAULTS) -> LocalStack:
        """Start the stack of a project; it is ready when this returns.

        Args:
            project: folder of `template.yaml`, and of `template-tensorflow.yaml` if it has one.
            options: see `LocalStackOptions`.

        Raises:
            LocalStackError: one of those in `stepensemble.local.errors`; StackRuns as soon as another process announces
                its stack.
        """
        folder = (options.state_dir or project / STATE_FOLDER).resolve()
        with explain_faults(folder), ExitStack() as exits:
            folder.mkdir(parents=True, exist_ok=True)
            make_private(folder)
            check = partial(refuse_second, folder)
            exits.enter_context(lock_state(folder / "lock", options.wait_seconds, options.on_wait, check))
            (folder / "stack.json").unlink(missing_ok=True)  # of a stack that was killed
            listener = exits.enter_context(_bind(options.port))
            endpoint = _address(listener)
            blueprints = _load_blueprints(project, options, folder / "cache")
            has_http = blueprints[STACK_NAME].http_function is not None
            http_listener = exits.enter_context(_bind(options.http_port)) if has_http else None
            if options.fresh:
                remove_database(folder / "state.db")
            database = StateDatabase(folder / "state.db")
            exits.callback(database.close)
            account = exits.enter_context(_take_account(database, options.account))
            settings = PoolSettings(
                project=project.resolve(),
                logs=folder / "logs",
                scratch=exits.enter_context(_temporary_folder(folder / "tmp")),
                endpoint=endpoint,
                region=REGION,
                account=account,
                concurrency=options.concurrency or max(4, os.cpu_count() or 1),
                code=options.code,
            )
            pool = exits.enter_context(FunctionPool(settings))
            parts = _StackParts(blueprints, folder, database, pool, listener, endpoint, account)
            served = _serve_aws(parts, exits)
            http = None
            if http_listener is not None:
                http = _address(http_listener)
                exits.callback(_serve_http(parts, http_listener, auth=options.auth).close)
            if options.announce:
                exits.enter_context(_announced(folder / "stack.json", RunningStack(os.getpid(), endpoint, STACK_NAME)))
            losses = [*([] if database.loss is None else [database.loss]), *served.damaged]
            return cls(endpoint, http, STACK_NAME, served.outputs, losses, pool, exits.pop_all())

    @classmethod
    def start_copy(cls, project: Path, state_dir: Path) -> LocalStack:
        """Start the stack of a project over a copy of a state, for reading; the copy is removed with the stack.

        Raises:
            LocalStackError: as `start`; StateUnwritable where the copy cannot be made.
        """
        with explain_faults(state_dir), ExitStack() as exits:
            folder = Path(exits.enter_context(TemporaryDirectory(prefix="stepensemble-")))
            copy_database(state_dir / "state.db", folder)
            started = exits.enter_context(cls.start(project, LocalStackOptions(state_dir=folder)))
            return replace(started, _exits=exits.pop_all())

    @property
    def functions(self) -> list[FunctionStatus]:
        """The functions and their processes at this moment."""
        return self._pool.describe()

    @property
    def definitions(self) -> list[LocalFunction]:
        """The functions as the template defines them."""
        return self._pool.definitions

    def prestart(self, names: Iterable[str]) -> None:
        """Start a process of each of these functions that has none; return at once."""
        self._pool.prestart(names)

    def close(self) -> None:
        """End connections, functions' processes and threads; the state is kept."""
        self._exits.close()

    def __enter__(self) -> LocalStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def find_running(state_dir: Path) -> RunningStack | None:
    """Return the announced stack of this state, if its process owns the state; the process may be busy.

    Raises:
        StateUnwritable: this user may not read the state's folder.
    """
    try:
        found = msgspec.json.decode((state_dir / "stack.json").read_bytes(), type=RunningStack)
    except (OSError, msgspec.DecodeError):
        return None
    with explain_faults(state_dir):
        return found if find_owner(state_dir / "lock") == found.pid else None


def refuse_second(folder: Path) -> None:
    """Raise StackRuns if the process that owns the state has announced its stack."""
    running = find_running(folder)
    if running is not None:
        raise StackRuns(
            f"the local stack runs already at {running.endpoint} (pid {running.pid}); stop it with: ensemble local stop"
        )


def _address(listener: socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"


def _load_blueprints(project: Path, options: LocalStackOptions, cache: Path) -> dict[str, Blueprint]:
    """Return the blueprints by the names of their stacks, the base stack first."""
    base = load_blueprint(project / "template.yaml", options.parameters, cache / "template.json")
    blueprints = {STACK_NAME: base}
    add_on = project / "template-tensorflow.yaml"
    wanted = find_spec("tensorflow") is not None if options.tensorflow is None else options.tensorflow
    if wanted and add_on.is_file():
        cached = cache / "template-tensorflow.json"
        blueprints[name_add_on(STACK_NAME)] = load_blueprint(add_on, {"BaseStackName": STACK_NAME}, cached)
    return blueprints


def _serve_aws(parts: _StackParts, exits: ExitStack) -> _ServedStack:
    """Create the stacks in moto, restore the state, and start to serve the AWS APIs."""
    cache = parts.folder / "cache" / "functions.json"
    digests = {name: blueprint.digest for name, blueprint in parts.blueprints.items()}
    templates = {name: digest_of(msgspec.json.encode(one.template)) for name, one in parts.blueprints.items()}
    cached = _read_function_cache(cache)
    if cached is not None and (cached.digests, cached.account) == (digests, parts.account):
        parts.pool.define(cached.functions)
        used = set(json.loads(parts.database.read_fact("used") or "[]"))
        parts.pool.prestart(function.name for function in cached.functions if function.logical_id in used)

    # moto is imported while these processes start on another processor; hence the imports inside this function.
    from stepensemble.local.emulation.server import create_stacks, load_moto

    load_moto(parts.blueprints.values())

    from stepensemble.local.emulation.persistence import Journal
    from stepensemble.local.emulation.retention import Retention
    from stepensemble.local.emulation.task_clients import ExecutionTarget, serve_executions
    from stepensemble.local.http.aws_endpoint import AwsEndpoint, ExpressEngine
    from stepensemble.local.http.server import HttpServer
    from stepensemble.local.moto_patches.speedups.asl_cache import DefinitionCache

    exits.enter_context(_short_switch_interval())
    definitions = DefinitionCache(parts.folder / "cache" / "programs")
    target = ExecutionTarget(parts.account, parts.endpoint, parts.pool, definitions)
    exits.enter_context(serve_executions(target))
    validated = cached is not None and cached.templates == templates
    created = exits.enter_context(create_stacks(parts.blueprints, parts.account, validated=validated))
    journal = Journal(parts.database, parts.account, REGION)
    damaged = journal.restore()
    journal.record_changes()
    parts.pool.define(created.functions)
    write_cache(cache, msgspec.json.encode(_FunctionCache(digests, templates, parts.account, created.functions)))
    exits.callback(lambda: parts.database.write_fact("used", json.dumps(sorted(parts.pool.used()))))
    engine, retention = ExpressEngine(parts.account, REGION), Retention(parts.account, REGION)
    endpoint = AwsEndpoint(created.application, parts.pool, journal, engine, retention)
    exits.callback(HttpServer(parts.listener, endpoint).close)
    parts.pool.use_all_processors()
    return _ServedStack(created.outputs[STACK_NAME], damaged)


def _serve_http(parts: _StackParts, listener: socket, *, auth: bool) -> HttpServer:
    """Serve the HTTP API in front of the function that the template puts behind it."""
    from stepensemble.local.http.api_gateway import ApiGateway
    from stepensemble.local.http.server import HttpServer

    logical_id = parts.blueprints[STACK_NAME].http_function
    name = next(function.name for function in parts.pool.describe() if function.logical_id == logical_id)
    return HttpServer(listener, ApiGateway(parts.pool, name, parts.account, auth=auth))


@contextmanager
def explain_faults(folder: Path) -> Iterator[None]:
    """Explain in a sentence that a file of the state's folder cannot be used, and what to do.

    Raises:
        StateUnwritable: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno not in {*FULL_DISK, *NO_PERMISSION}:
            raise
        path = Path(str(error.filename or folder))
        if not path.is_relative_to(folder):
            raise
        raise StateUnwritable(f"{path} cannot be used ({error.strerror}); {_find_remedy(error, path)}") from error


def _find_remedy(error: OSError, path: Path) -> str:
    if error.errno in FULL_DISK:
        return "free some space on its disk, and run the command again"
    if error.errno in NO_PERMISSION:
        return "make its folder writable for this user"
    if error.errno in {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}:
        return f"something else is in its place; move that away: mv {path} {path}.aside"
    return "check its disk, and run the command again"


@contextmanager
def _bind(port: int) -> Iterator[socket]:
    try:
        listener = create_server((HOST, port), backlog=256)
    except OSError as error:
        raise PortTaken(f"port {port} is not free ({error.strerror}); choose another, or 0 for any") from None
    with listener:
        yield listener


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that is removed at the end; what a killed stack has left in it is removed first."""
    rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


@contextmanager
def _short_switch_interval() -> Iterator[None]:
    """Have Python switch threads more often: the pool's thread passes messages on while other threads compute."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _take_account(database: StateDatabase, requested: str | None) -> Iterator[str]:
    """Reserve the account that the state was made in, which the buckets' names contain; for a new state a free one."""
    with ACCOUNTS_LOCK:
        account = database.read_fact("account")
        if account is None:
            free = (str(number) for number in range(FIRST_ACCOUNT, 10**12) if str(number) not in ACCOUNTS)
            account = requested or next(free)
            database.write_fact("account", account)
        if account in ACCOUNTS:
            raise LocalStackError(f"this process runs another local stack of account {account}; close that first")
        ACCOUNTS.add(account)
    try:
        yield account
    finally:
        with ACCOUNTS_LOCK:
            ACCOUNTS.discard(account)


@contextmanager
def _announced(path: Path, running: RunningStack) -> Iterator[None]:
    write_atomically(path, msgspec.json.encode(running))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _read_function_cache(path: Path) -> _FunctionCache | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_FunctionCache)
    except (OSError, msgspec.DecodeError):
        return None
