"""The command that validates a manifest and tests its models: `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stepensemble.cli.options import (
    DEFAULT_MANIFEST,
    RELEASES_PANEL,
    JsonOption,
    ManifestOption,
    read_manifest,
    require_manifest,
)
from stepensemble.cli.terminal import out, print_json, print_state, print_warning, show_status
from stepensemble.core.errors import InvalidManifest
from stepensemble.core.releases.release import SHORT

commands = typer.Typer()


@commands.command(rich_help_panel=RELEASES_PANEL)
def check(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="MANIFEST", help="The manifest file.", show_default=str(DEFAULT_MANIFEST)),
    ] = None,
    manifest: ManifestOption = None,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Show every check with its figure and limit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Validate a manifest and run every model it names: the checks that `publish` makes before it writes."""
    if path is not None and manifest is not None:
        message = f"{manifest} is a second manifest beside {path}; give only one"
        raise typer.BadParameter(message, param_hint="--manifest")
    from stepensemble.admission.gate import run_gate

    checked = path or manifest or DEFAULT_MANIFEST
    require_manifest(checked, "MANIFEST" if manifest is None else "--manifest")
    try:
        with show_status("Reading the manifest") as status:
            report = run_gate(read_manifest(checked), status.update)
    except InvalidManifest as error:
        if as_json:
            print_json({"ok": False, "checks": [], "warnings": [], "problems": msgspec.to_builtins(error.problems)})
            raise typer.Exit(1) from None
        raise
    if as_json:
        print_json(report.to_json())
        raise typer.Exit(1 if report.problems else 0)
    from stepensemble.cli.tables.common import render_checks, render_members

    if explain:
        out.print(render_checks(report.checks))
    for problem in report.warnings:
        print_warning(str(problem))
    report.raise_if_rejected()
    if not explain:
        out.print(render_members(report))
    print_state("ok", f"{checked} compiles to release {report.sources.digest[:SHORT]}")
