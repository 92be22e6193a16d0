"""The commands that start and stop the local stack: `local`, `local stop`."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from stepensemble.cli.options import (
    FreshOption,
    JsonOption,
    ManifestOption,
    read_project_manifest,
)
from stepensemble.cli.terminal import (
    encode_line,
    err,
    out,
    print_json,
    print_note,
    print_state,
    print_warning,
    show_status,
)
from stepensemble.core.releases.release import SHORT

commands = typer.Typer(help="Run the local stack, so that any AWS client can use it.", invoke_without_command=True)


@commands.callback()
def local_up(
    context: typer.Context,
    manifest: ManifestOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the AWS services; 0 for any free port.")] = 0,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the HTTP API; 0 for any free port.")] = 0,
    *,
    fresh: FreshOption = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="Let the HTTP API reject unsigned requests; signatures are not verified.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Run it in the background.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the local stack until Ctrl-C, with a release published as `ensemble run` does."""
    if context.invoked_subcommand is not None:
        return
    from stepensemble.cli.local_stack import detach_stack, serve_stack, wait_for_signal
    from stepensemble.local.options import LocalStackOptions

    options = LocalStackOptions(port=port, http_port=http_port, fresh=fresh, auth=auth)
    if detach:
        with show_status("Starting the local stack in the background"):
            description = detach_stack(manifest, options)
        _show_stack(description, as_json=as_json)
        return
    with ExitStack() as exits:
        with show_status("Reading the manifest") as status:
            sources = read_project_manifest(manifest)
            named = manifest is not None
            serving = serve_stack(sources, options, named=named, notify=status.update)
            description = exits.enter_context(serving)
        _show_stack(description, as_json=as_json)
        if not as_json:
            out.print("Ctrl-C stops it.", style="dim")
        if wait_for_signal() == signal.SIGTERM:
            raise typer.Exit(143)
        err.print("stopping")


@commands.command("stop")
def local_stop(*, as_json: JsonOption = False) -> None:
    """Stop the local stack that runs in the background."""
    from stepensemble.cli.local_stack import stop_stack

    stopped = stop_stack()
    if as_json:
        print_json({"stopped": stopped})
    else:
        out.print("stopped" if stopped else "no local stack is running")


def _show_stack(description: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(encode_line(description) + "\n")
        sys.stdout.flush()
        return
    print_state("up", f"{description['endpoint']}  (stack {description['stack']}, pid {description['pid']})")
    if description["resumed"]:
        print_note(
            f"the inbox had objects without a response, which are processed now: {', '.join(description['resumed'])}"
        )
    for name, arn in description["state_machines"].items():
        out.print(f"  {name:<10} {arn}", soft_wrap=True)
    out.print(f"  {'records':<10} {description['table']}")
    if description["http"] is not None:
        out.print(f"  {'http':<10} {description['http']}")
    out.print(f"  {'release':<10} {description['release'][:SHORT]}")
    for loss in description["losses"]:
        print_warning(loss)
    out.print(
        f"\n  AWS_ENDPOINT_URL={description['endpoint']} AWS_DEFAULT_REGION={description['region']} "
        "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DISABLE_HOST_PREFIX_INJECTION=true \\\n"
        f"  aws stepfunctions start-execution --state-machine-arn {description['state_machines']['standard']} "
        "--input file://EVENT.json",
        soft_wrap=True,
    )
