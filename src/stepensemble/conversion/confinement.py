"""What the child process of `child` may do, as far as the system can see to that.

Limits on memory, processor time and the size of a file hold on every Unix. On Linux with Landlock (5.13 and later,
where it is switched on) the child reads the system, Python and its own folder, writes nowhere but in that folder, reads
neither the memory nor the environment of other processes, and from 6.7 on neither opens nor accepts TCP connections.
Landlock needs no privileges. Where it is not there, a child that a file took over can do what its user can.

This module imports the standard library alone: Landlock binds the thread that calls it and those that it starts, so it
is called before NumPy and TensorFlow start theirs.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import site
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

GIBIBYTE = 1024**3
MEMORY = 10 * GIBIBYTE
"""Bytes that the child may fill: as much as the largest Lambda has, so that what needs more could not be served."""
FILE = 4 * GIBIBYTE
"""Bytes of one file that it may write. A SavedModel's variables end at 2 GiB; see `archives.Limits`."""

KEPT = frozenset(
    {
        *("PATH", "LANG", "LANGUAGE", "TZ"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    }
)
"""Variables of the environment that the child gets, with those that begin with LC_: what Python and its libraries need
to start. Credentials are in others."""

SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/sys"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm"),
    *("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/random", "/dev/zero"),
)
"""What it may read besides Python, its own folder and OWN_PROCESS. Not /proc, where the environment of others is."""

OWN_PROCESS = "/proc/self"

SILENCE = "/dev/null"

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls, numbered alike on every processor; see landlock(7)."""
_VERSION, _PATH_BENEATH = 1, 1
_SET_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1, 2, 4, 8
_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
"""The rights over files that Landlock of a version knows; later ones know as many as the last."""
_TRUNCATE, _CONTROL_DEVICE = 0x4000, 0x8000
_READ = _EXECUTE | _READ_FILE | _READ_FOLDER
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _CONTROL_DEVICE
_TCP, _SCOPES = 3, 3
"""Binding and connecting; abstract sockets and signals."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def choose_environment(given: Mapping[str, str], room: str) -> dict[str, str]:
    """Return the child's environment.

    Names of nodes depend on the order of sets; with that fixed, the same file is converted to the same bytes.

    Args:
        given: this process's environment.
        room: the child's folder, which is its home, too.
    """
    kept = {name: value for name, value in given.items() if name in KEPT or name.startswith("LC_")}
    own = {"HOME": room, "TMPDIR": room, "PYTHONUSERBASE": site.getuserbase()}  # packages may lie in the user's home
    return {**kept, **own, "PYTHONHASHSEED": "0", "KERAS_BACKEND": "tensorflow"}


def confine(room: Path, seconds: int) -> bool:
    """Confine this process, for good.

    Args:
        room: the only folder it may write in.
        seconds: of processor time, all threads together.

    Returns:
        Whether Landlock confines it; the limits are set in any case, as far as the system has them.
    """
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, MEMORY),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_CPU, seconds),
    ):
        with suppress(OSError, ValueError):  # not every system has every limit, or lets it be set
            resource.setrlimit(limit, (value, value))
    if sys.platform != "linux":
        return False
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    return _confine_by_landlock(system, room)


def _confine_by_landlock(system: ctypes.CDLL, room: Path) -> bool:
    version = system.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return False
    rights = _RIGHTS[min(version, max(_RIGHTS))]
    ruleset = _Ruleset(rights, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = ctypes.sizeof(_Ruleset) if version >= 6 else 16 if version >= 4 else 8
    rules = system.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if rules < 0:
        return False
    try:
        for path, allowed in _list_rules(room, rights):
            _allow(system, rules, path, allowed)
        system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return bool(system.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _list_rules(room: Path, rights: int) -> Iterator[tuple[Path, int]]:
    """Yield the paths that may be used, each with what may be done beneath it."""
    yield room, rights
    yield Path(SILENCE), rights & (_READ_FILE | _WRITE_FILE | _TRUNCATE)
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    own = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path, *libraries, str(Path(__file__).parents[2])]
    for path in dict.fromkeys([*SYSTEM, OWN_PROCESS, *own]):
        if Path(path).is_absolute():
            yield Path(path), _READ


def _allow(system: ctypes.CDLL, rules: int, path: Path, allowed: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be read
    try:
        beneath = _Beneath(allowed if path.is_dir() else allowed & _OF_A_FILE, place)
        system.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(beneath), 0)
    finally:
        if path != Path(OWN_PROCESS):  # while it is open, the kernel does not forget what the rule is about
            os.close(place)
