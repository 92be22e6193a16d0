"""Serve the local stack: in this process, or in one of its own that outlives the command."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepensemble.cli.stacks import find_project, ignore_aws_profile, local_stack, prepare_release, state_folder
from stepensemble.cli.terminal import print_note
from stepensemble.core.errors import LocalStackError
from stepensemble.local.options import LocalStackOptions
from stepensemble.publishing.manifest_loader import Sources

STOP_SECONDS = 30.0
"""The longest wait for a stack to stop: one with many executions takes some seconds to end them."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def serve_stack(
    sources: Sources | None,
    options: LocalStackOptions,
    *,
    named: bool,
    notify: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Run the local stack with a release published, as `prepare_release` does; yield its description.

    Raises:
        LocalStackError: a local stack is running already (StackRuns), or this one cannot start.
    """
    from stepensemble.cli.inbox import resume_inbox
    from stepensemble.local.stack import LocalStack

    ignore_aws_profile()
    project = find_project(Path.cwd())
    notify("Starting the local stack")
    options = replace(options, state_dir=state_folder(project), on_wait=notify, announce=True)
    with LocalStack.start(project, options) as started:
        stack = local_stack(started.name, started.endpoint)
        prepare_release(stack, sources, named=named, notify=notify, note=print_note)
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
            "resumed": resume_inbox(stack),
            "table": stack.outputs["RecordsTableName"],
            "release": stack.releases.read_current()[0].release,
            "losses": list(started.losses),
        }


def detach_stack(manifest: Path | None, options: LocalStackOptions) -> dict[str, Any]:
    """Start `ensemble local` in a process of its own, and return its description once it is ready.

    Raises:
        LocalStackError: a local stack is running already (StackRuns), or this one ended before it was ready,
            with its output.
    """
    from stepensemble.local.stack import explain_faults, refuse_second

    folder = state_folder(find_project(Path.cwd()))
    refuse_second(folder)
    log = folder / f"local.{os.getpid()}.log"  # of this attempt; there may be another at the same time
    with explain_faults(folder):
        folder.mkdir(exist_ok=True)
        log.touch()
    command = [sys.executable, "-m", "stepensemble.cli", "local", "--json", "--port", str(options.port)]
    command += ["--http-port", str(options.http_port)]
    command += [] if manifest is None else ["--manifest", str(manifest)]
    command += [*(["--fresh"] if options.fresh else []), *(["--auth"] if options.auth else [])]
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: S603 (our own command)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, text=True
        )
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        process.wait()
        output = log.read_text().strip()
        log.unlink()
        refuse_second(folder)
        raise LocalStackError(f"the local stack did not start: {output}")
    log.replace(folder / "local.log")
    return dict(json.loads(line))


def wait_for_signal() -> signal.Signals:
    """Wait in the main thread for SIGINT or SIGTERM, and return which arrived.

    The system may deliver a signal to any thread. That does not wake a main thread that waits for a lock, so it waits
    for the byte that Python writes in the thread that gets the signal.
    """
    received: list[signal.Signals] = []
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.settimeout(0)
        writer.settimeout(0)
        handlers = {
            one: signal.signal(one, lambda number, _: received.append(signal.Signals(number))) for one in STOP_SIGNALS
        }
        previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            while not received:
                select.select([reader], [], [])
                reader.recv(64)
        finally:
            signal.set_wakeup_fd(previous)
            for one, handler in handlers.items():
                signal.signal(one, handler)
    return received[0]


def stop_stack(timeout: float = STOP_SECONDS) -> bool:
    """Stop the project's local stack, wait for its end, and return whether there was one.

    Raises:
        LocalStackError: it belongs to another user, or has not ended after `timeout` seconds.
    """
    from stepensemble.local.stack import find_running
    from stepensemble.local.state_database import find_owner

    folder = state_folder(find_project(Path.cwd()))
    running = find_running(folder)
    if running is None:
        return False
    try:
        os.kill(running.pid, signal.SIGTERM)
    except ProcessLookupError:
        return True  # it has ended meanwhile
    except PermissionError:
        message = f"the local stack (pid {running.pid}) belongs to another user; only that user or root can stop it"
        raise LocalStackError(message) from None
    deadline = time.monotonic() + timeout
    # The lock is released shortly before the process ends.
    while find_owner(folder / "lock") == running.pid or process_runs(running.pid):
        if time.monotonic() > deadline:
            raise LocalStackError(
                f"the local stack (pid {running.pid}) has not ended {timeout:.0f} s after SIGTERM; wait, or end it "
                f"with: kill -9 {running.pid} (finished executions are stored)"
            )
        time.sleep(0.05)
    return True


def process_runs(pid: int) -> bool:
    """Return whether a process runs; one that has ended does not, even if its parent has not waited for it."""
    try:
        if sys.platform != "linux":
            os.kill(pid, 0)
            return True
        # Readable once the process has ended. The first process of a container may never wait for its children.
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return not select.select([descriptor], [], [], 0)[0]
    finally:
        os.close(descriptor)
