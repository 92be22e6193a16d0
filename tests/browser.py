"""A page in a real browser: positions, colours, and the browser's requests.

Chromium without a window writes its layout and a screenshot. A script in a copy of the page measures it; the screenshot
is of the page as it is.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.image import imread

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

QUIET = (
    "--headless",
    "--no-sandbox",  # CI may be root; the pages are this project's
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--force-color-profile=srgb",
    "--proxy-bypass-list=<-loopback>",
)
OWN = re.compile(r"(?://|^CONNECT )[a-z0-9.]*\bgoogle(?:apis)?\.com[:/]")
"""What Chromium requests on its own, for any page: its updates, its clock."""

LIGHT, DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"
SECONDS = 120

CSP = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

PROBE = """
<script id="probe-script">
addEventListener("load", () => {
  const box = element => { const r = element.getBoundingClientRect();
    return [r.left + scrollX, r.top + scrollY, r.right + scrollX, r.bottom + scrollY]; };
  const found = {
    boxes: Object.fromEntries([...document.querySelectorAll("[id]")].map(e => [e.id, box(e)])),
    marks: Object.fromEntries([...document.querySelectorAll("[id*=-curve-]")].map(
      e => [e.id, [...e.querySelectorAll("use")].map(box)])),
    texts: [...document.querySelectorAll("td, th, h1, h2, dd, text, .number")].map(
      e => [e.textContent, ...box(e)]),
    seen: document.querySelector("main").innerText,
    names: [...new Set([...document.querySelectorAll("*")].map(e => e.localName))],
    scripts: document.scripts.length,
    title: document.title,
    ran: window.ran ?? null,
    resources: performance.getEntriesByType("resource").map(e => e.name),
    background: getComputedStyle(document.body).backgroundColor,
    width: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight,
  };
  const probe = document.createElement("pre");
  probe.id = "probe"; probe.hidden = true; probe.textContent = JSON.stringify(found);
  document.body.append(probe);
});
</script>
"""

Box = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """A page in a window of some width.

    Attributes:
        measured: what the script measured: boxes by id (left, top, right, bottom), texts with their boxes, …
        requests: what the browser requested from the network, except the page itself.
    """

    measured: Mapping[str, Any]
    requests: tuple[str, ...]
    screenshot: Path

    @cached_property
    def pixels(self) -> Pixels:
        """`(height, width, 3)`."""
        return np.rint(imread(self.screenshot)[..., :3] * 255).astype(np.uint8)

    def box(self, name: str) -> Box:
        """Return an element's position and size."""
        left, top, right, bottom = self.measured["boxes"][name]
        return left, top, right, bottom

    def colour(self, x: float, y: float) -> tuple[int, int, int]:
        """Return the colour of a pixel."""
        red, green, blue = self.pixels[int(y), int(x)].tolist()
        return red, green, blue


def show_page(page: str, folder: Path, *, width: int = 1000, dark: bool = False, screenshot: bool = True) -> Seen:
    """Show a page to the browser, over HTTP from a server that is the browser's proxy for everything else, too.

    The measured copy has no Content-Security-Policy, so only the page's own markup keeps scripts from
    running; with `screenshot`, which is of the page as it is, it is loaded a second time.
    """
    scheme = DARK if dark else LIGHT
    probed = CSP.sub("", page).replace("</body>", f"{PROBE}</body>")
    with _serve({"/page.html": page, "/probe.html": probed}) as (address, requests):
        common = (str(BROWSER), *QUIET, scheme, f"--proxy-server={address}", f"--user-data-dir={folder / 'profile'}")
        dumped = _run(*common, f"--window-size={width},1000", "--dump-dom", f"http://{address}/probe.html")
        found = re.search(r'<pre id="probe" hidden="">(.*?)</pre>', dumped, re.DOTALL)
        assert found is not None, "the page was not loaded"
        measured = json.loads(html.unescape(found[1]))
        drawn = folder / "page.png"
        if screenshot:
            size = f"--window-size={width},{measured['height']}"
            _run(*common, size, f"--screenshot={drawn}", f"http://{address}/page.html")
    pages = ("GET /page.html", "GET /probe.html")
    others = [one.replace(f"http://{address}", "") for one in requests if not OWN.search(one)]
    others = [one for one in others if one not in pages]
    return Seen(measured, tuple(others), drawn)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _serve(pages: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Serve pages on loopback, refuse everything else, and list all requests."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            requests.append(f"{self.command} {self.path}")
            page = pages.get("/" + self.path.rsplit("/", 1)[-1])
            body = (page or "").encode()
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_HEAD = do_CONNECT = respond  # noqa: N815 named by http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 named by http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
