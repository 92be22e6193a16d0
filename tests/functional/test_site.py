"""`make docs` builds the site without warnings, and its search works in a browser that opens it from the disk."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from browser import BROWSER, QUIET
from builders import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("sphinx") is None, reason="Sphinx is not installed; make docs installs it"
    ),
]
PAGES = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built by the command of the Makefile into a separate folder."""
    folder = tmp_path_factory.mktemp("site")
    recipe = subprocess.run(
        ["make", "-n", "--no-print-directory", "docs"],  # noqa: S607 (the reader's own make)
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (command,) = re.findall(r"^\S+sphinx-build (.*)$", recipe.replace("\\\n", " "), flags=re.MULTILINE)
    arguments = command.replace("build/doctrees", str(folder / "doctrees")).replace("build/docs", str(folder / "html"))
    assert "--fail-on-warning" in arguments
    built = subprocess.run(
        [Path(sys.executable).with_name("sphinx-build"), *shlex.split(arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


def test_every_page_is_built_and_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    assert len(PAGES) > 20
    for page in PAGES:
        text = (site / page.relative_to(ROOT)).with_suffix(".html").read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*", text) == []


def test_the_entry_leads_to_the_index(site: Path) -> None:
    (target,) = re.findall(r"url=([^\"]+)\"", (site / "index.html").read_text())
    assert "How-to guides" in (site / target).read_text(encoding="utf-8")


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; make browser installs it")
def test_the_search_works_from_the_disk(site: Path) -> None:
    assert BROWSER is not None
    found = subprocess.run(
        [BROWSER, *QUIET, "--virtual-time-budget=10000", "--dump-dom", f"{(site / 'search.html').as_uri()}?q=quorum"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    results = re.findall(r'<li[^>]*><a href="([^"?#]+)', found[found.index('id="search-results"') :])
    assert {"docs/aggregation.html", "docs/manifest.html"} <= set(results)
