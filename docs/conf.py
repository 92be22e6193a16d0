"""Sphinx configuration of the site: `make docs`.

The project's folder is the source folder, so links to pages, scripts and the template work here as on GitHub.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath
from typing import Any

project = "stepensemble"
author = "The stepensemble developers"
html_title = "stepensemble"
root_doc = "docs/index"
extensions = ["myst_parser"]
# README.md is GitHub's page, with a diagram that GitHub draws; docs/index.md is the site's.
include_patterns = ["docs/*.md", "docs/*/*.md", "examples/*/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build"]

# Everything is in the built folder: no font, script or style comes from another host, and the search needs no server.
html_theme = "furo"
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_theme_options = {"footer_icons": []}

myst_heading_anchors = 4  # a link to `page.md#heading` is checked, with GitHub's names for headings
suppress_warnings = ["myst.header"]  # the changelog skips heading levels


def add_navigation(_: Any, page: str, source: list[str]) -> None:
    """Put the pages that each section of the index links to into the sidebar, in the index's order."""
    if page != root_doc:
        return
    for section in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]:
        caption = section.split("\n")[0]
        linked = [normpath(f"docs/{link}") for link in re.findall(r"\]\(([^)]+)\.md\)", section)]
        entries = "\n".join(f"/{link}" for link in linked)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def add_entry(app: Any, error: Exception | None) -> None:
    """Write an index.html that redirects to the index, which is in a folder of its own."""
    if error is None:
        text = (
            '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html"><title>stepensemble</title>\n'
        )
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Connect both functions to the build."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_entry)
