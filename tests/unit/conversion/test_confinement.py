"""What a confined child process may do, tested in a real one."""

from __future__ import annotations

import json
import os
import site
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepensemble.conversion.confinement import FILE, choose_environment

ATTEMPTS = """
import json, os, resource, socket, sys
from pathlib import Path
from stepensemble.conversion.confinement import confine

room, outside, port, parent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
confined = confine(room, 60)


def attempt(deed):
    try:
        deed()
    except OSError as error:
        return type(error).__name__
    return "done"


print(json.dumps({
    "confined": confined,
    "write in the folder": attempt(lambda: (room / "file").write_text("text")),
    "make a folder in it": attempt(lambda: (room / "folder").mkdir()),
    "write to nowhere": attempt(lambda: open("/dev/null", "w").close()),
    "read the system": attempt(lambda: os.listdir("/usr")),
    "read how much memory it fills": attempt(lambda: Path("/proc/self/status").read_text()),
    "write outside": attempt(lambda: (outside / "file").write_text("text")),
    "write over": attempt(lambda: (outside / "secret").write_text("text")),
    "remove": attempt(lambda: (outside / "secret").unlink()),
    "make a link": attempt(lambda: os.symlink("/", outside / "link")),
    "read outside": attempt(lambda: (outside / "secret").read_text()),
    "read passwords": attempt(lambda: Path("/etc/passwd").read_text()),
    "read by way of a link": attempt(lambda: (os.symlink(outside, room / "away"), (room / "away/secret").read_text())),
    "read the parent's environment": attempt(lambda: Path(f"/proc/{parent}/environ").read_bytes()),
    "end the parent": attempt(lambda: os.kill(parent, 0)),
    "connect": attempt(lambda: socket.create_connection(("127.0.0.1", port), 5).close()),
    "file size": resource.getrlimit(resource.RLIMIT_FSIZE),
    "processor time": resource.getrlimit(resource.RLIMIT_CPU),
}))
"""


def try_all(tmp_path: Path) -> dict[str, Any]:
    room, outside = tmp_path / "room", tmp_path / "outside"
    room.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [str(room), str(outside), str(server.getsockname()[1]), str(os.getpid())]
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, *arguments], check=True, capture_output=True, text=True, timeout=60
        )
    assert (outside / "secret").read_text() == "secret" or not json.loads(done.stdout)["confined"]
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has Landlock")
def test_a_confined_process_can_use_only_its_own_folder(tmp_path: Path) -> None:
    seen = try_all(tmp_path)
    assert (seen.pop("file size"), seen.pop("processor time")) == ([FILE, FILE], [60, 60])
    if not seen.pop("confined"):
        pytest.skip("Landlock is not switched on here")
    allowed = (
        "write in the folder",
        "make a folder in it",
        "write to nowhere",
        "read the system",
        "read how much memory it fills",
    )
    assert {deed: seen.pop(deed) for deed in allowed} == dict.fromkeys(allowed, "done")
    # Kernels before 6.7 know no rule for TCP, those before 6.12 none for signals.
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    for deed, since in (("connect", (6, 7)), ("end the parent", (6, 12))):
        if release < since:
            seen.pop(deed)
    assert seen == dict.fromkeys(seen, "PermissionError")


def test_the_environment_has_no_credentials() -> None:
    kept = {"PATH": "/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    secrets = ("AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GITHUB_TOKEN", "TF_VAR_password", "LD_PRELOAD", "PYTHONSTARTUP")
    chosen = choose_environment({**kept, **dict.fromkeys(secrets, "secret"), "HOME": "/home/someone"}, "/room")
    assert chosen == {
        **kept,
        "HOME": "/room",
        "TMPDIR": "/room",
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONHASHSEED": "0",
        "KERAS_BACKEND": "tensorflow",
    }
