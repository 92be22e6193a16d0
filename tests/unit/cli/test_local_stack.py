"""The local stack kept up until a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from stepensemble.cli.local_stack import process_runs, wait_for_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_another_thread_gets_ends_the_wait(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    # Only now is there a handler of ours; before, the signal would end the tests.
    ours = threading.Event()

    def send() -> None:
        while signal.getsignal(number) is before:
            ours.wait(0.01)
        signal.pthread_kill(threading.get_ident(), number)

    sender = threading.Thread(target=send)
    sender.start()
    assert wait_for_signal() is number
    sender.join()
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process that is not collected counts as running")
def test_a_process_runs_until_it_has_ended_collected_or_not() -> None:
    assert process_runs(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_runs(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process_runs(child.pid)
    child.communicate()
    assert not process_runs(child.pid)
