"""Options that several commands share, and reading what they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stepensemble.publishing.manifest_loader import Sources

DEFAULT_MANIFEST = Path("models/manifest.json")

ManifestOption = Annotated[
    Path | None, typer.Option("--manifest", help="The manifest.", show_default=str(DEFAULT_MANIFEST))
]
StackOption = Annotated[str | None, typer.Option("--stack", help="A stack deployed in AWS; without it, the local one.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Forget records, releases and artifacts first.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]


def read_project_manifest(manifest: Path | None) -> Sources | None:
    """Read as `read_manifest` does; None where no manifest is named and the project has none."""
    return None if manifest is None and not DEFAULT_MANIFEST.is_file() else read_manifest(manifest)


def read_manifest(manifest: Path | None) -> Sources:
    """Read the manifest that an option names, or the project's, with its artifacts.

    Raises:
        typer.BadParameter: there is no such file.
        InvalidManifest: with every problem.
    """
    from stepensemble.publishing.manifest_loader import read_sources

    path = manifest or DEFAULT_MANIFEST
    require_manifest(path, "MANIFEST")
    return read_sources(path)


def require_manifest(path: Path, hint: str) -> None:
    """Refuse a manifest that is not there, with how to make one.

    Raises:
        typer.BadParameter: there is no such file.
    """
    if not path.is_file():
        message = (
            f"{path} is not there; go to the project's folder, or name another manifest; or write this one first, with "
            'a name, a task, features and "members": [], as docs/manifest.md shows; ensemble add FILE adds the members'
        )
        raise typer.BadParameter(message, param_hint=hint)
