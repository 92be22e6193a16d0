"""Keep connections open that send a byte each second and never end their request, and time other requests meanwhile.

Promise: other requests get responses, and their median latency stays within a few times that of an idle stack.

    python campaigns/connections.py --connections 600 --requests 60
"""

from __future__ import annotations

import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection

from laboratory import ROOT, Findings, read_size, start_stack

BEGINNING = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n{"
)
SLOWNESS = 3.0
"""The largest accepted multiple of the idle median."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and report."""
    size = read_size(__doc__, arguments, connections=600, requests=60)
    found = Findings("connections", vars(size))
    body = (ROOT / "events" / "passenger.json").read_bytes()
    with start_stack() as (local, _, _):
        assert local.http is not None  # noqa: S101 (the template has an HTTP API)
        host, _, port = local.http.removeprefix("http://").partition(":")
        address = (host, int(port))
        measure(address, body, size.requests // 3 + 1)  # processes start
        idle = measure(address, body, size.requests)
        with slow_connections(address, size.connections) as opened:
            busy = measure(address, body, size.requests)
    found.counts |= {
        "connections opened": opened,
        "median when idle, ms": round(1000 * statistics.median(idle), 1),
        "median beside them, ms": round(1000 * statistics.median(busy), 1),
    }
    found.expect(opened == size.connections, f"{opened} of {size.connections} connections could be opened")
    found.expect(len(busy) == size.requests, f"{len(busy)} of {size.requests} requests got a response")
    slower = statistics.median(busy) / statistics.median(idle)
    found.expect(slower < SLOWNESS, f"the median latency is {slower:.1f} times that of an idle stack")
    return found.report()


def measure(address: tuple[str, int], body: bytes, requests: int) -> list[float]:
    """Send requests one after the other; return the seconds of those with status 200."""
    seconds = []
    connection = HTTPConnection(*address, timeout=60)
    for _ in range(requests):
        began = time.perf_counter()
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status == 200:
            seconds.append(time.perf_counter() - began)
    connection.close()
    return seconds


@contextmanager
def slow_connections(address: tuple[str, int], many: int) -> Iterator[int]:
    """Keep connections open that send a byte every second; yield how many could be opened."""
    sockets: list[socket.socket] = []
    over = threading.Event()

    def drip() -> None:
        while not over.wait(1):
            for one in sockets:
                with suppress(OSError):
                    one.send(b" ")

    try:
        with suppress(OSError):
            for _ in range(many):
                sockets.append(socket.create_connection(address, timeout=10))
                sockets[-1].send(BEGINNING)
        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        yield len(sockets)
    finally:
        over.set()
        for one in sockets:
            one.close()


if __name__ == "__main__":
    sys.exit(main())
