"""The local stack as a whole: started, described, found and stopped."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from socket import create_server, socket
from tempfile import TemporaryDirectory
from types import TracebackType

import msgspec
from msgspec import Struct

from stepensemble.core.errors import LocalStackError
from stepensemble.core.releases.release import digest_of, name_add_on
from stepensemble.local.errors import PortTaken, StackRuns, StateUnwritable
from stepensemble.local.file_permissions import make_private
from stepensemble.local.lambdas.pool import Code, FunctionPool, FunctionStatus, LocalFunction, Surroundings
from stepensemble.local.state_database import StateDatabase, copy_database, find_owner, lock_state, remove_database
from stepensemble.local.template import REGION, Blueprint, load_blueprint, write_atomically, write_cache

STACK_NAME = "stepensemble-local"
STATE_FOLDER = ".stepensemble"
FIRST_ACCOUNT = 123456789012
"""moto's own default."""

PATIENCE_SECONDS = 60.0
SWITCH_SECONDS = 0.001
HOST = "127.0.0.1"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

ACCOUNTS: set[str] = set()
"""In use by this process's stacks; moto keeps accounts, and nothing else, apart."""
ACCOUNTS_LOCK = threading.Lock()


class RunningStack(Struct, frozen=True):
    """A stack that runs in some process and has announced itself."""

    pid: int
    endpoint: str
    name: str


class _Known(Struct, frozen=True):
    """The functions of the last start, so that their processes need not wait for moto.

    Attributes:
        digests: of the stacks' blueprints, by name.
        templates: of what moto has created of them, definitions of state machines included.
    """

    digests: dict[str, str]
    templates: dict[str, str]
    account: str
    functions: list[LocalFunction]


@dataclass(frozen=True)
class LocalStack:
    """A stack that runs in this process. Close it, or use it as a context manager, and nothing of it is left.

    Attributes:
        endpoint: of every AWS API, for `AWS_ENDPOINT_URL`.
        http: of the HTTP API; None where the template has none.
        name: the CloudFormation stack's.
        outputs: the template's.
        losses: what the state has lost or cannot be read of it, a sentence each.
    """

    endpoint: str
    http: str | None
    name: str
    outputs: Mapping[str, str]
    losses: Sequence[str]
    _pool: FunctionPool
    _exits: ExitStack

    @classmethod
    def start(
        cls,
        project: Path,
        *,
        state_dir: Path | None = None,
        fresh: bool = False,
        parameters: Mapping[str, str] | None = None,
        port: int = 0,
        http_port: int = 0,
        auth: bool = False,
        concurrency: int | None = None,
        on_wait: Callable[[str], None] | None = None,
        code: Mapping[str, Code] | None = None,
        announce: bool = False,
        account: str | None = None,
        tensorflow: bool | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> LocalStack:
        """Start the stack of a project; it is ready when this returns.

        Args:
            project: folder of `template.yaml`, and of `template-tensorflow.yaml`, if it has that.
            state_dir: where state, logs and caches lie; `.stepensemble` in the project if not given.
            fresh: forget what was kept.
            parameters: overrides of the template's defaults.
            port: 0 for a free one.
            http_port: of the HTTP API; likewise.
            auth: whether a request to the HTTP API must be signed, in form; see `local.http.api_gateway`.
            concurrency: processes a function may have; the number of processors, at least 4, if not given.
            on_wait: told if another command has to finish first.
            code: functions' code by logical id, instead of what the template says.
            announce: write `stack.json` into the state's folder, for `find_running`.
            account: of a state that is new; twelve digits. 123456789012, or the next that no other stack of this
                process has, if not given.
            tensorflow: whether to have the slots for TensorFlow too; if not given, where it is installed.
            patience: seconds to wait for another command.

        Raises:
            LocalStackError: one of those in `stepensemble.local.errors`; StackRuns as soon as another process announces
                its stack.
        """
        folder = (state_dir or project / STATE_FOLDER).resolve()
        with explain_faults(folder), ExitStack() as exits:
            folder.mkdir(parents=True, exist_ok=True)
            make_private(folder)
            look = partial(refuse_second, folder)
            exits.enter_context(lock_state(folder / "lock", patience, on_wait or (lambda _: None), look))
            (folder / "stack.json").unlink(missing_ok=True)  # of a stack that was killed
            listener = exits.enter_context(_bind(port))
            endpoint = f"http://{HOST}:{listener.getsockname()[1]}"
            blueprints = _load_blueprints(project, parameters or {}, folder / "cache", tensorflow=tensorflow)
            has_door = blueprints[STACK_NAME].door is not None
            door = exits.enter_context(_bind(http_port)) if has_door else None
            http = None if door is None else f"http://{HOST}:{door.getsockname()[1]}"
            if fresh:
                remove_database(folder / "state.db")
            database = StateDatabase(folder / "state.db")
            exits.callback(database.close)
            account = exits.enter_context(_take_account(database, account))
            surroundings = Surroundings(
                project=project.resolve(),
                logs=folder / "logs",
                scratch=exits.enter_context(_emptied(folder / "tmp")),
                endpoint=endpoint,
                region=REGION,
                account=account,
                concurrency=concurrency or max(4, os.cpu_count() or 1),
                code=code or {},
            )
            pool = exits.enter_context(FunctionPool(surroundings))
            outputs, damaged = _assemble(exits, blueprints, database, pool, listener, endpoint, account, folder)
            if door is not None:
                _open_door(exits, blueprints[STACK_NAME], pool, door, account, auth=auth)
            if announce:
                exits.enter_context(_announced(folder / "stack.json", RunningStack(os.getpid(), endpoint, STACK_NAME)))
            losses = [*([] if database.loss is None else [database.loss]), *damaged]
            return cls(endpoint, http, STACK_NAME, outputs, losses, pool, exits.pop_all())

    @classmethod
    def start_copy(cls, project: Path, state_dir: Path) -> LocalStack:
        """Start the stack of a project over a copy of a state, which goes with the stack; for reading.

        Raises:
            LocalStackError: as `start`; StateUnwritable where not even a copy can be made.
        """
        with explain_faults(state_dir), ExitStack() as exits:
            folder = Path(exits.enter_context(TemporaryDirectory(prefix="stepensemble-")))
            copy_database(state_dir / "state.db", folder)
            started = exits.enter_context(cls.start(project, state_dir=folder))
            return replace(started, _exits=exits.pop_all())

    @property
    def functions(self) -> list[FunctionStatus]:
        """The functions and their processes, now."""
        return self._pool.describe()

    @property
    def definitions(self) -> list[LocalFunction]:
        """The functions as the template defines them."""
        return self._pool.definitions

    def prestart(self, names: Iterable[str]) -> None:
        """Start a process of each of these functions that has none, without waiting for it."""
        self._pool.prestart(names)

    def close(self) -> None:
        """End everything: connections, functions' processes, threads; the state is kept."""
        self._exits.close()

    def __enter__(self) -> LocalStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def find_running(state_dir: Path) -> RunningStack | None:
    """Return the announced stack of this state, if its process owns the state, however busy it is.

    Raises:
        StateUnwritable: this user may not know.
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


def _load_blueprints(
    project: Path, parameters: Mapping[str, str], cache: Path, *, tensorflow: bool | None
) -> dict[str, Blueprint]:
    """Return the blueprints by the names of their stacks, the base stack first."""
    blueprints = {STACK_NAME: load_blueprint(project / "template.yaml", parameters, cache / "template.json")}
    add_on = project / "template-tensorflow.yaml"
    wanted = find_spec("tensorflow") is not None if tensorflow is None else tensorflow
    if wanted and add_on.is_file():
        kept = cache / "template-tensorflow.json"
        blueprints[name_add_on(STACK_NAME)] = load_blueprint(add_on, {"BaseStackName": STACK_NAME}, kept)
    return blueprints


def _assemble(
    exits: ExitStack,
    blueprints: Mapping[str, Blueprint],
    database: StateDatabase,
    pool: FunctionPool,
    listener: socket,
    endpoint: str,
    account: str,
    folder: Path,
) -> tuple[Mapping[str, str], list[str]]:
    """Put moto, the state and the functions together and start serving; also say what of the state is damaged."""
    kept = folder / "cache" / "functions.json"
    digests = {name: blueprint.digest for name, blueprint in blueprints.items()}
    templates = {name: digest_of(msgspec.json.encode(one.template)) for name, one in blueprints.items()}
    known = _read_known(kept)
    if known is not None and (known.digests, known.account) == (digests, account):
        pool.define(known.functions)
        used = set(json.loads(database.read_fact("used") or "[]"))
        pool.prestart(function.name for function in known.functions if function.logical_id in used)

    # While these processes start on another processor, moto is imported; hence imports in the middle of things.
    from stepensemble.local.emulation.server import create_stacks, load_moto

    load_moto(blueprints.values())

    from stepensemble.local.emulation.asl_cache import Programs
    from stepensemble.local.emulation.persistence import Journal
    from stepensemble.local.emulation.stepfunctions import Home, Retention, serve_executions
    from stepensemble.local.http.aws_endpoint import ExpressEngine, Gateway
    from stepensemble.local.http.server import HttpServer

    exits.enter_context(_brisk_threads())
    exits.enter_context(serve_executions(Home(account, endpoint, pool, Programs(folder / "cache" / "programs"))))
    sound = known is not None and known.templates == templates
    created = exits.enter_context(create_stacks(blueprints, account, sound=sound))
    journal = Journal(database, account, REGION)
    damaged = journal.restore()
    journal.follow()
    pool.define(created.functions)
    write_cache(kept, msgspec.json.encode(_Known(digests, templates, account, created.functions)))
    exits.callback(lambda: database.write_fact("used", json.dumps(sorted(pool.used()))))
    gateway = Gateway(created.application, pool, journal, ExpressEngine(account, REGION), Retention(account, REGION))
    exits.callback(HttpServer(listener, gateway).close)
    pool.take_all_processors()
    return created.outputs[STACK_NAME], damaged


def _open_door(
    exits: ExitStack, blueprint: Blueprint, pool: FunctionPool, listener: socket, account: str, *, auth: bool
) -> None:
    """Serve the HTTP API, in front of the function that the template puts behind it."""
    from stepensemble.local.http.api_gateway import Door
    from stepensemble.local.http.server import HttpServer

    name = next(function.name for function in pool.describe() if function.logical_id == blueprint.door)
    exits.callback(HttpServer(listener, Door(pool, name, account, auth=auth)).close)


@contextmanager
def explain_faults(folder: Path) -> Iterator[None]:
    """Say in a sentence that a file of the state's folder cannot be used.

    Raises:
        StateUnwritable: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno not in {*FULL, *CLOSED}:
            raise
        path = Path(str(error.filename or folder))
        if not path.is_relative_to(folder):
            raise
        raise StateUnwritable(f"{path} cannot be used ({error.strerror}); {_find_remedy(error, path)}") from error


def _find_remedy(error: OSError, path: Path) -> str:
    if error.errno in FULL:
        return "free some space on its disk, and run the command again"
    if error.errno in CLOSED:
        return "make its folder writable for this user"
    if error.errno in {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}:
        return f"something else is in its place; move that away: mv {path} {path}.aside"
    return "look at its disk, and run the command again"


@contextmanager
def _bind(port: int) -> Iterator[socket]:
    try:
        listener = create_server((HOST, port), backlog=256)
    except OSError as error:
        raise PortTaken(f"port {port} is not free ({error.strerror}); choose another, or 0 for any") from None
    with listener:
        yield listener


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Make a folder that is removed at the end; before the beginning too, as a stack may have been killed."""
    rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


@contextmanager
def _brisk_threads() -> Iterator[None]:
    """Let threads take turns more often: the pool's, which only passes messages on, waits for those that compute."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _take_account(database: StateDatabase, wish: str | None) -> Iterator[str]:
    """Take the account that the state was made in, as names of buckets hold it; for a new state any that is free."""
    with ACCOUNTS_LOCK:
        account = database.read_fact("account")
        if account is None:
            free = (str(number) for number in range(FIRST_ACCOUNT, 10**12) if str(number) not in ACCOUNTS)
            account = wish or next(free)
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


def _read_known(path: Path) -> _Known | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Known)
    except (OSError, msgspec.DecodeError):
        return None
