"""The `ensemble` command: parse, one call, draw.

Exit codes: 0 ok; 1 the job failed (a bad manifest or payload, no quorum, no stack); 2 wrong usage (an unknown option, a
file that is not there or not JSON).
"""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from stepensemble.cli.add_command import commands as additions
from stepensemble.cli.batch_commands import commands as batches
from stepensemble.cli.options import (
    DEFAULT_MANIFEST,
    FreshOption,
    JsonOption,
    LimitOption,
    ManifestOption,
    StackOption,
    read_manifest,
    read_project_manifest,
)
from stepensemble.cli.release_commands import commands
from stepensemble.cli.terminal import announce, complain, encode_line, err, note, out, print_json, show_status, warn
from stepensemble.cli.warm_command import commands as warming
from stepensemble.cli.watch_command import commands as watches
from stepensemble.core.errors import EnsembleError, InvalidManifest
from stepensemble.core.releases.release import SHORT

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
app = typer.Typer(
    name="ensemble",
    help="Serve an ensemble of TensorFlow models from AWS Step Functions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
local = typer.Typer(help="Keep the local stack up, so that any AWS client can use it.", invoke_without_command=True)
app.add_typer(additions)
app.add_typer(commands)
app.add_typer(batches)
app.add_typer(warming)
app.add_typer(watches)
app.add_typer(local, name="local")


@app.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="The manifest.")] = DEFAULT_MANIFEST,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Show every check with its figure.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Validate a manifest, and try every artifact it names: what a publish does before it writes anything."""
    from stepensemble.admission.gate import examine

    try:
        with show_status("Reading the manifest") as status:
            report = examine(read_manifest(manifest), status.update)
    except InvalidManifest as error:
        if as_json:
            print_json({"ok": False, "checks": [], "warnings": [], "problems": msgspec.to_builtins(error.problems)})
            raise typer.Exit(1) from None
        raise
    if as_json:
        print_json(report.to_json())
        raise typer.Exit(1 if report.refused else 0)
    from stepensemble.cli.pictures import draw_checks, draw_trials

    if explain:
        out.print(draw_checks(report.checks))
    for problem in report.warnings:
        warn(str(problem))
    report.raise_if_refused()
    if not explain:
        out.print(draw_trials(report))
    announce("ok", f"{manifest} compiles to release {report.sources.digest[:SHORT]}")


@app.command()
def run(
    event: Annotated[
        str, typer.Argument(help="A file with the payload, or a picture; - for standard input.", show_default=False)
    ],
    manifest: ManifestOption = None,
    stack: StackOption = None,
    *,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start an execution and show what every member says, and the answer.

    A picture (PNG, JPEG, WebP) may be given as it is to an ensemble whose only feature is one.

    The current release predicts, or the canary, by its share. The local stack publishes the project's manifest first,
    where nothing is current, the manifest has changed, or another ensemble is current. With --manifest the release of
    that one predicts: the local stack publishes it first, a deployed stack refuses where it is neither current nor the
    canary.
    """
    from stepensemble.cli.execution import run_execution
    from stepensemble.cli.stacks import open_stack, settle_release
    from stepensemble.core.payload import is_warmup

    if fresh and stack is not None:
        raise typer.BadParameter("a deployed stack is never emptied", param_hint="--fresh")
    asked = _read_event(event)
    if is_warmup(asked):
        raise typer.BadParameter("a warm-up has no answer to show; run: ensemble warm", param_hint="EVENT")
    sources = read_project_manifest(manifest) if stack is None or manifest is not None else None
    with (
        show_status("Looking for the stack") as status,
        open_stack(stack, notify=status.update, fresh=fresh) as opened,
    ):
        pinned = None if sources is None or manifest is None else sources.digest
        if opened.local:
            pinned = settle_release(opened, sources, named=manifest is not None, notify=status.update, remark=note)
        payload = asked
        if isinstance(asked, bytes):
            from stepensemble.cli.images import find_image_feature, picture_payload

            if sources is not None and pinned == sources.digest:
                features = sources.release.features
            else:
                release = pinned or opened.releases.read_current()[0].release
                features = opened.releases.read_release(release).features
            payload = picture_payload(find_image_feature(features), asked)
        status.update("Asking the members")
        outcome = run_execution(opened, payload, pinned)
        drawn = None if as_json or outcome.output is None else opened.releases.read_release(outcome.output.release)
    if as_json:
        print_json(outcome.to_json())
    elif drawn is not None and outcome.output is not None:
        from stepensemble.cli.fan_out import draw_fan_out

        if isinstance(asked, bytes):
            from stepensemble.cli.images import draw_picture

            out.print(draw_picture(asked, outcome.output, drawn, colour=out.color_system is not None), "")
        out.print(draw_fan_out(outcome.output, drawn, out.width))
    if outcome.error is not None:
        if not as_json:
            complain(outcome.error, outcome.cause or "")
        raise typer.Exit(1)


@app.command()
def show(
    prediction_id: Annotated[str, typer.Argument(help="As an execution's output names it.")],
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Read a record back: input, every member's output, the answer."""
    from stepensemble.cli.stacks import open_stack

    with show_status("Reading the record") as status, open_stack(stack, notify=status.update, reading=True) as opened:
        record = opened.records.read(prediction_id)
        release = None if as_json else opened.releases.read_release(record.release)
    if release is None:
        print_json(msgspec.to_builtins(record))
        return
    from stepensemble.cli.fan_out import draw_fan_out, draw_input

    out.print(draw_input(record))
    out.print(draw_fan_out(record.output, release, out.width))
    if record.failure is not None:
        out.print(str(record.failure), style="red")


@app.command()
def records(
    stack: StackOption = None,
    limit: LimitOption = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the latest records."""
    from stepensemble.cli.stacks import open_stack

    with show_status("Reading the records") as status, open_stack(stack, notify=status.update, reading=True) as opened:
        summaries = opened.records.latest(limit)
    if as_json:
        print_json(msgspec.to_builtins(summaries))
    elif summaries:
        from stepensemble.cli.pictures import draw_records

        out.print(draw_records(summaries))
    else:
        out.print("nothing is recorded yet")


@app.command()
def events(
    stack: StackOption = None,
    limit: LimitOption = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the latest predictions that a person should look at."""
    from stepensemble.cli.stacks import open_stack

    with show_status("Reading the events") as status, open_stack(stack, notify=status.update, reading=True) as opened:
        latest = opened.reviews.latest(limit)
    if as_json:
        print_json(msgspec.to_builtins(latest))
    elif latest:
        from stepensemble.cli.pictures import draw_events

        out.print(draw_events(latest))
    else:
        out.print("no prediction needs a review")


@app.command()
def replay(
    since: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The first day, in UTC.", show_default="31 days back")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many, newest first.", show_default="all")] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="Try another manifest: its policy, and its members' terms.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Try another aggregation method.")] = None,
    weights: Annotated[str | None, typer.Option(help="Try other weights, such as a=2,b=0.5.")] = None,
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Decide recorded outputs again by another policy, calling no model, and show what changes."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.cli.what_if import read_day, read_what_if, replay_stack

    first, what_if = read_day(since), read_what_if(manifest, method, weights)
    with (
        show_status("Looking for the stack") as status,
        open_stack(stack, notify=status.update, reading=True) as opened,
    ):
        status.stop()
        replayed = replay_stack(opened, what_if, first, limit, err)
    if as_json:
        print_json(replayed.to_json())
    elif replayed.listed:
        from stepensemble.cli.changes import draw_replay

        out.print(draw_replay(replayed))
    else:
        out.print(f"nothing is recorded since {replayed.since}")


@local.callback()
def local_up(
    context: typer.Context,
    manifest: ManifestOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free one.")] = 0,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="The same for the HTTP API.")] = 0,
    *,
    fresh: FreshOption = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="The HTTP API takes signed requests only; no signature is verified.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Keep it up in the background.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep the local stack up, with a release published as by `run`, until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    from stepensemble.cli.background import detach_stack, serve_stack, wait_for_signal

    if detach:
        with show_status("Starting the local stack in the background"):
            description = detach_stack(manifest, port, http_port, fresh=fresh, auth=auth)
        _show_stack(description, as_json=as_json)
        return
    with ExitStack() as exits:
        with show_status("Reading the manifest") as status:
            sources = read_project_manifest(manifest)
            named = manifest is not None
            serving = serve_stack(sources, port, http_port, named=named, fresh=fresh, auth=auth, notify=status.update)
            description = exits.enter_context(serving)
        _show_stack(description, as_json=as_json)
        if not as_json:
            out.print("Ctrl-C stops it.", style="dim")
        if wait_for_signal() == signal.SIGTERM:
            raise typer.Exit(143)
        err.print("stopping")


@local.command("stop")
def local_stop(*, as_json: JsonOption = False) -> None:
    """Stop the local stack that runs in the background."""
    from stepensemble.cli.background import stop_stack

    stopped = stop_stack()
    if as_json:
        print_json({"stopped": stopped})
    else:
        out.print("stopped" if stopped else "no local stack is running")


def main() -> NoReturn:
    """Run the command; the entry point."""
    # SIGTERM unwinds like Ctrl-C, so that a stack started for this command is taken down with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except EnsembleError as error:
        complain(type(error).__name__, str(error))
    except Exception as error:
        # What botocore and obstore say is for people; anything else is our fault and keeps its traceback.
        if not type(error).__module__.startswith(("botocore", "obstore")):
            raise
        complain(type(error).__name__, str(error))
    sys.exit(1)


def _read_event(event: str) -> object:
    """Read a payload; a picture is its bytes."""
    from stepensemble.batch.run import kind_of
    from stepensemble.core.json_text import read_json
    from stepensemble.imaging import sniff_image

    name = "standard input" if event == "-" else event
    if kind_of(event) is not None and Path(event).is_file():
        message = f"{event} is a dataset of rows, and an event is one JSON document; run: ensemble batch {event}"
        raise typer.BadParameter(message, param_hint="EVENT")
    body = b""
    try:
        body = sys.stdin.buffer.read() if event == "-" else Path(event).read_bytes()
        if sniff_image(body):
            return body
        return read_json(body)
    except (OSError, ValueError) as error:
        from stepensemble.conversion.formats import is_model_file

        if not isinstance(error, FileNotFoundError) and is_model_file(Path(event), body):
            message = f"{name} is a model file, and an event is one JSON document; run: ensemble add " + (
                "FILE" if event == "-" else event
            )
        elif isinstance(error, OSError):
            remedy = "go to the project's folder, or give another file, or - for standard input"
            message = f"{name} cannot be read: {error.strerror}; {remedy}"
        elif isinstance(error, UnicodeDecodeError):
            message = f"{name} is not text in UTF-8; give a JSON document, or a picture (PNG, JPEG, WebP)"
        else:
            message = f"{name} is not JSON: {error}"
        raise typer.BadParameter(message, param_hint="EVENT") from None


def _show_stack(description: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(encode_line(description) + "\n")
        sys.stdout.flush()
        return
    announce("up", f"{description['endpoint']}  (stack {description['stack']}, pid {description['pid']})")
    if description["resumed"]:
        note(f"the inbox had objects without an answer, which are processed now: {', '.join(description['resumed'])}")
    for name, arn in description["state_machines"].items():
        out.print(f"  {name:<10} {arn}", soft_wrap=True)
    out.print(f"  {'records':<10} {description['table']}")
    if description["http"] is not None:
        out.print(f"  {'http':<10} {description['http']}")
    out.print(f"  {'release':<10} {description['release'][:SHORT]}")
    for loss in description["losses"]:
        warn(loss)
    out.print(
        f"\n  AWS_ENDPOINT_URL={description['endpoint']} AWS_DEFAULT_REGION={description['region']} "
        "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DISABLE_HOST_PREFIX_INJECTION=true \\\n"
        f"  aws stepfunctions start-execution --state-machine-arn {description['state_machines']['standard']} "
        "--input file://EVENT.json",
        soft_wrap=True,
    )
