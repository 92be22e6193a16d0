"""Sphinx builds the site from this: `make docs`.

The project's folder is the source folder, so that links to pages, scripts and the template work here as on
GitHub.
"""

project = "stepensemble"
author = "The stepensemble developers"
html_title = "stepensemble"
root_doc = "docs/index"
extensions = ["myst_parser"]
# README.md is GitHub's page, with a diagram that GitHub draws; docs/index.md is the site's.
include_patterns = ["docs/*.md", "docs/*/*.md", "examples/*/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "docs/generate_reference.py"]

html_theme = "furo"
html_show_sourcelink = False
# No font, script or style comes from another host, and the search needs no server.
html_copy_source = False
html_theme_options = {"footer_icons": []}

myst_heading_anchors = 4  # a link to `page.md#heading` is checked, as GitHub names headings
suppress_warnings = ["myst.header"]  # README files of examples and this changelog may begin below the first level
