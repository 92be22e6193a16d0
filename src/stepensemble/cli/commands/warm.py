"""The command that warms a stack up."""

from __future__ import annotations

import typer

from stepensemble.cli.options import JsonOption, ManifestOption, StackOption, read_project_manifest
from stepensemble.cli.terminal import note, out, print_json, show_status

commands = typer.Typer()


@commands.command()
def warm(manifest: ManifestOption = None, stack: StackOption = None, *, as_json: JsonOption = False) -> None:
    """Have every slot load its models, twice, and show the first times beside the second.

    Nothing is asked and nothing is recorded. The local stack publishes the project's manifest first, as by `run`.
    """
    if manifest is not None and stack is not None:
        raise typer.BadParameter("a deployed stack loads what it serves; leave it out", param_hint="--manifest")
    sources = read_project_manifest(manifest) if stack is None else None

    from stepensemble.cli.stacks import open_stack, settle_release
    from stepensemble.cli.warmup import warm_up_twice

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        if opened.local:
            settle_release(opened, sources, named=manifest is not None, notify=status.update, remark=note)
        status.update("Warming up")
        warmed = warm_up_twice(opened)
    if as_json:
        print_json(warmed.to_json())
    else:
        from stepensemble.cli.tables.warmup import draw_warmed

        out.print(draw_warmed(warmed))
    if warmed.failed:
        raise typer.Exit(1)
