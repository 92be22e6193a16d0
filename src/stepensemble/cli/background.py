"""The local stack kept up: in this process, or in one of its own that outlives the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepensemble.cli.stacks import ensure_published, find_project, forget_profile, local_stack, state_folder
from stepensemble.core.errors import LocalStackError
from stepensemble.publishing.sources import Sources

STOP_SECONDS = 10.0


@contextmanager
def serve_stack(
    sources: Sources, port: int, http_port: int, *, fresh: bool, auth: bool, notify: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Keep the local stack up with a release published; the value describes it.

    Raises:
        LocalStackError: one is running already, or it cannot start.
    """
    from stepensemble.cli.arrivals import resume_arrivals
    from stepensemble.local.stack import LocalStack, find_running

    forget_profile()
    project = find_project(Path.cwd())
    running = find_running(state_folder(project))
    if running is not None:
        raise LocalStackError(
            f"the local stack runs already at {running.endpoint} (pid {running.pid}); stop it with: ensemble local stop"
        )
    notify("Starting the local stack")
    with LocalStack.start(
        project,
        state_dir=state_folder(project),
        fresh=fresh,
        port=port,
        http_port=http_port,
        auth=auth,
        on_wait=notify,
        announce=True,
    ) as started:
        stack = local_stack(started.name, started.endpoint)
        ensure_published(stack, sources, notify=notify)
        yield {
            "endpoint": started.endpoint,
            "http": started.http,
            "stack": stack.name,
            "region": stack.session.region_name,
            "pid": os.getpid(),
            "state_machines": {
                "standard": stack.outputs["StateMachineArn"],
                "express": stack.outputs["ExpressStateMachineArn"],
            },
            "buckets": {
                "artifacts": stack.outputs["ArtifactBucketName"],
                "data": stack.outputs["DataBucketName"],
            },
            "resumed": resume_arrivals(stack),
            "table": stack.outputs["RecordsTableName"],
            "release": sources.digest,
        }


def detach_stack(manifest: Path, port: int, http_port: int, *, fresh: bool, auth: bool) -> dict[str, Any]:
    """Start `ensemble local` in a process of its own, and return its description once it is ready.

    Raises:
        LocalStackError: it ended before it was ready, with what it said.
    """
    folder = state_folder(find_project(Path.cwd()))
    folder.mkdir(exist_ok=True)
    log = folder / "local.log"
    command = [sys.executable, "-m", "stepensemble.cli", "local", "--json", "--port", str(port)]
    command += ["--http-port", str(http_port), "--manifest", str(manifest)]
    command += [*(["--fresh"] if fresh else []), *(["--auth"] if auth else [])]
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: S603 (our own command)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, text=True
        )
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        process.wait()
        raise LocalStackError(f"the local stack did not start: {log.read_text().strip()}")
    return dict(json.loads(line))


def stop_stack() -> bool:
    """Stop the project's local stack, wherever it was started; say whether there was one.

    Raises:
        LocalStackError: it does not let go of its state within `STOP_SECONDS`.
    """
    from stepensemble.local.stack import find_running
    from stepensemble.local.state import lock_state

    folder = state_folder(find_project(Path.cwd()))
    running = find_running(folder)
    if running is None:
        return False
    os.kill(running.pid, signal.SIGTERM)
    with lock_state(folder / "lock", STOP_SECONDS, lambda _: None):
        return True
