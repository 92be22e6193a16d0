"""Options that several commands share, and functions that read the files they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stepensemble.publishing.manifest_loader import Sources

DEFAULT_MANIFEST = Path("models/manifest.json")

PREDICT_PANEL = "Predict"
DATASETS_PANEL = "Datasets"
RELEASES_PANEL = "Models and releases"
STACK_PANEL = "Stack"
"""The panels of `ensemble --help`."""

ManifestOption = Annotated[
    Path | None, typer.Option("--manifest", help="The manifest file.", show_default=str(DEFAULT_MANIFEST))
]
StackOption = Annotated[
    str | None, typer.Option("--stack", help="Name of a stack deployed in AWS.", show_default="the local stack")
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="First delete the local stack's records, releases and artifacts.")
]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="How many to list, newest first.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]


def read_project_manifest(manifest: Path | None) -> Sources | None:
    """Read like `read_manifest`; None if no manifest is named and the project has none."""
    return None if manifest is None and not DEFAULT_MANIFEST.is_file() else read_manifest(manifest)


def read_manifest(manifest: Path | None) -> Sources:
    """Read the manifest that an option names, or the project's, with its artifacts.

    Raises:
        typer.BadParameter: the file does not exist.
        InvalidManifest: with every problem.
    """
    from stepensemble.publishing.manifest_loader import read_sources

    path = manifest or DEFAULT_MANIFEST
    require_manifest(path, "--manifest")
    return read_sources(path)


def require_manifest(path: Path, hint: str) -> None:
    """Reject a manifest that does not exist, with the ways to get one.

    Raises:
        typer.BadParameter: the file does not exist.
    """
    if not path.is_file():
        message = (
            f"{path} does not exist; go to the project's folder, or name another manifest; or write this one first, "
            'with a name, a task, features and "members": [] (see docs/manifest.md); then add members with: ensemble '
            "add FILE"
        )
        raise typer.BadParameter(message, param_hint=hint)
