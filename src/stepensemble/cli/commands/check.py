"""Checks a manifest and its artifacts: `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stepensemble.cli.options import (
    DEFAULT_MANIFEST,
    JsonOption,
    read_manifest,
)
from stepensemble.cli.terminal import announce, out, print_json, show_status, warn
from stepensemble.core.errors import InvalidManifest
from stepensemble.core.releases.release import SHORT

commands = typer.Typer()


@commands.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="The manifest.")] = DEFAULT_MANIFEST,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Show every check with its figure.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Validate a manifest, and try every artifact it names: what a publish does before it writes anything."""
    from stepensemble.admission.gate import run_gate

    try:
        with show_status("Reading the manifest") as status:
            report = run_gate(read_manifest(manifest), status.update)
    except InvalidManifest as error:
        if as_json:
            print_json({"ok": False, "checks": [], "warnings": [], "problems": msgspec.to_builtins(error.problems)})
            raise typer.Exit(1) from None
        raise
    if as_json:
        print_json(report.to_json())
        raise typer.Exit(1 if report.problems else 0)
    from stepensemble.cli.tables.common import draw_checks, draw_trials

    if explain:
        out.print(draw_checks(report.checks))
    for problem in report.warnings:
        warn(str(problem))
    report.raise_if_rejected()
    if not explain:
        out.print(draw_trials(report))
    announce("ok", f"{manifest} compiles to release {report.sources.digest[:SHORT]}")
