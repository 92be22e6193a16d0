"""The command that warms a stack up: `warm`."""

from __future__ import annotations

import typer

from stepensemble.cli.options import STACK_PANEL, JsonOption, ManifestOption, StackOption, read_project_manifest
from stepensemble.cli.terminal import out, print_json, print_note, show_status

commands = typer.Typer()


@commands.command(rich_help_panel=STACK_PANEL)
def warm(manifest: ManifestOption = None, stack: StackOption = None, *, as_json: JsonOption = False) -> None:
    """Warm the stack up twice, and show how long each slot took: cold, and warm.

    It predicts nothing and records nothing. The local stack first publishes the project's manifest, as `ensemble run`
    does.
    """
    if manifest is not None and stack is not None:
        raise typer.BadParameter(
            "a deployed stack loads the releases that it serves; give either --manifest or --stack",
            param_hint="--manifest",
        )
    sources = read_project_manifest(manifest) if stack is None else None

    from stepensemble.cli.stacks import open_stack, prepare_release
    from stepensemble.cli.warmup import warm_up_twice

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        if opened.local:
            prepare_release(opened, sources, named=manifest is not None, notify=status.update, note=print_note)
        status.update("Warming up")
        warmups = warm_up_twice(opened)
    if as_json:
        print_json(warmups.to_json())
    else:
        from stepensemble.cli.tables.warmup import render_warmup

        out.print(render_warmup(warmups))
    if warmups.failed:
        raise typer.Exit(1)
