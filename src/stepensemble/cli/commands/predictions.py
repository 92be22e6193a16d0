"""Runs executions, and reads, lists and replays what was recorded: `run`, `show`, `records`, `events`, `replay`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stepensemble.cli.options import (
    FreshOption,
    JsonOption,
    LimitOption,
    ManifestOption,
    StackOption,
    read_project_manifest,
)
from stepensemble.cli.terminal import complain, err, note, out, print_json, show_status

commands = typer.Typer()


@commands.command()
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
            from stepensemble.cli.tables.image_preview import find_image_feature, picture_payload

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
        from stepensemble.cli.tables.prediction import draw_fan_out

        if isinstance(asked, bytes):
            from stepensemble.cli.tables.image_preview import draw_picture

            out.print(draw_picture(asked, outcome.output, drawn, colour=out.color_system is not None), "")
        out.print(draw_fan_out(outcome.output, drawn, out.width))
    if outcome.error is not None:
        if not as_json:
            complain(outcome.error, outcome.cause or "")
        raise typer.Exit(1)


@commands.command()
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
    from stepensemble.cli.tables.prediction import draw_fan_out, draw_input

    out.print(draw_input(record))
    out.print(draw_fan_out(record.output, release, out.width))
    if record.failure is not None:
        out.print(str(record.failure), style="red")


@commands.command()
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
        from stepensemble.cli.tables.common import draw_records

        out.print(draw_records(summaries))
    else:
        out.print("nothing is recorded yet")


@commands.command()
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
        from stepensemble.cli.tables.common import draw_reviews

        out.print(draw_reviews(latest))
    else:
        out.print("no prediction needs a review")


@commands.command()
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
        from stepensemble.cli.tables.replay import draw_replay

        out.print(draw_replay(replayed))
    else:
        out.print(f"nothing is recorded since {replayed.since}")


def _read_event(event: str) -> object:
    """Read a payload; a picture is its bytes."""
    from stepensemble.batch.documents import kind_of
    from stepensemble.core.strict_json import read_json
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
