"""Restricts what the child process of `child_process` may do, as far as the operating system supports it.

Limits on memory, processor time and file size apply on every Unix. On Linux with Landlock (5.13 and later, if enabled)
the child can read the system, Python and its own folder, and can write only in that folder. It can read neither the
memory nor the environment of other processes, and from 6.7 on it can neither open nor accept TCP connections. Landlock
needs no privileges. Without Landlock, a child that a file took over can do whatever its user can.

This module imports only the standard library: Landlock applies to the thread that calls it and to the threads that it
starts, so it is called before NumPy and TensorFlow start theirs.
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
"""Maximum bytes of the child's memory: that of the largest Lambda, since a larger model could not be served."""
FILE = 4 * GIBIBYTE
"""Maximum bytes of a file that it writes. A SavedModel's variables have at most 2 GiB; see `archives.Limits`."""

KEPT = frozenset(
    {
        *("PATH", "LANG", "LANGUAGE", "TZ"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    }
)
"""Environment variables that the child gets, beside those that begin with LC_: what Python and its libraries need to
start. Credentials are in other variables."""

SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/sys"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm"),
    *("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/random", "/dev/zero"),
)
"""Paths it may read, besides Python, its own folder and OWN_PROCESS. Not /proc, which has the environment of others."""

OWN_PROCESS = "/proc/self"

NULL_DEVICE = "/dev/null"

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls, with the same numbers on every processor; see landlock(7)."""
_VERSION, _PATH_BENEATH = 1, 1
_SET_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1, 2, 4, 8
_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
"""The rights over files, by version of Landlock; later versions have those of the last one."""
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


def choose_environment(given: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return the child's environment.

    The names of graph nodes depend on the order of sets; with a fixed order, the same file gives the same bytes.

    Args:
        given: this process's environment.
        folder: the child's folder, also its home.
    """
    kept = {name: value for name, value in given.items() if name in KEPT or name.startswith("LC_")}
    own = {"HOME": folder, "TMPDIR": folder, "PYTHONUSERBASE": site.getuserbase()}  # packages may be in the user's home
    return {**kept, **own, "PYTHONHASHSEED": "0", "KERAS_BACKEND": "tensorflow"}


def confine(folder: Path, seconds: int) -> bool:
    """Confine this process permanently.

    Args:
        folder: the only folder it may write in.
        seconds: of processor time, all threads together.

    Returns:
        Whether Landlock confines it; the limits that the system supports are set in any case.
    """
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, MEMORY),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_CPU, seconds),
    ):
        with suppress(OSError, ValueError):  # some systems do not have a limit, or do not allow to set it
            resource.setrlimit(limit, (value, value))
    if sys.platform != "linux":
        return False
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    return _confine_by_landlock(system, folder)


def _confine_by_landlock(system: ctypes.CDLL, folder: Path) -> bool:
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
        for path, allowed in _list_rules(folder, rights):
            _allow(system, rules, path, allowed)
        system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return bool(system.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _list_rules(folder: Path, rights: int) -> Iterator[tuple[Path, int]]:
    """Yield the paths that may be used, each with the rights beneath it."""
    yield folder, rights
    yield Path(NULL_DEVICE), rights & (_READ_FILE | _WRITE_FILE | _TRUNCATE)
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    own = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path, *libraries, str(Path(__file__).parents[2])]
    for path in dict.fromkeys([*SYSTEM, OWN_PROCESS, *own]):
        if Path(path).is_absolute():
            yield Path(path), _READ


def _allow(system: ctypes.CDLL, rules: int, path: Path, allowed: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a path that does not exist needs no rule
    try:
        beneath = _Beneath(allowed if path.is_dir() else allowed & _OF_A_FILE, place)
        system.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(beneath), 0)
    finally:
        if path != Path(OWN_PROCESS):  # the kernel keeps the rule only while this is open
            os.close(place)
