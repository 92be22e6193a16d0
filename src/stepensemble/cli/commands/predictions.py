"""The commands that predict, and that read, list and replay records: `run`, `show`, `records`, `reviews`, `replay`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from stepensemble.cli.options import (
    PREDICT_PANEL,
    FreshOption,
    JsonOption,
    LimitOption,
    ManifestOption,
    StackOption,
    read_project_manifest,
)
from stepensemble.cli.terminal import err, out, print_error, print_json, print_note, show_status

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepensemble.cli.stacks import Stack
    from stepensemble.core.aggregation.output import Output
    from stepensemble.core.releases.release import Release
    from stepensemble.core.schema.manifest import Feature
    from stepensemble.publishing.manifest_loader import Sources

commands = typer.Typer()


@commands.command(rich_help_panel=PREDICT_PANEL)
def run(
    event: Annotated[
        str,
        typer.Argument(
            metavar="EVENT", help="A file with the payload, or an image; - for standard input.", show_default=False
        ),
    ],
    manifest: ManifestOption = None,
    stack: StackOption = None,
    *,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> None:
    """Predict the rows of a payload in one execution, and show every member's output and the prediction.

    An image (PNG, JPEG, WebP) needs no payload if it is the ensemble's only feature.

    The current release predicts; if there is a canary, it predicts for its share of the executions. The local stack
    first publishes the project's manifest if nothing is current, the manifest has changed, or another ensemble is
    current. With --manifest the release of that manifest predicts: the local stack publishes it first; a deployed stack
    rejects the request unless that release is current or the canary.
    """
    from stepensemble.cli.execution import run_execution
    from stepensemble.cli.stacks import open_stack, prepare_release
    from stepensemble.core.payload import is_warmup

    if fresh and stack is not None:
        message = f"it does not delete the records of a deployed stack; leave out --fresh, or --stack {stack}"
        raise typer.BadParameter(message, param_hint="--fresh")
    given = _read_event(event)
    if is_warmup(given):
        raise typer.BadParameter("a warm-up returns no prediction; run: ensemble warm", param_hint="EVENT")
    sources = read_project_manifest(manifest) if stack is None or manifest is not None else None
    with (
        show_status("Looking for the stack") as status,
        open_stack(stack, notify=status.update, fresh=fresh) as opened,
    ):
        pinned = None if sources is None or manifest is None else sources.digest
        if opened.local:
            pinned = prepare_release(opened, sources, named=manifest is not None, notify=status.update, note=print_note)
        payload = given
        if isinstance(given, bytes):
            from stepensemble.cli.tables.image_preview import build_image_payload, find_image_feature

            payload = build_image_payload(find_image_feature(_read_features(opened, sources, pinned)), given)
        status.update("Invoking the members")
        outcome = run_execution(opened, payload, pinned)
        release = None if as_json or outcome.output is None else opened.releases.read_release(outcome.output.release)
    if as_json:
        print_json(outcome.to_json())
    elif release is not None and outcome.output is not None:
        _show_output(outcome.output, release, given if isinstance(given, bytes) else None)
    if outcome.error is not None:
        if not as_json:
            print_error(outcome.error, outcome.cause or "")
        raise typer.Exit(1)


def _read_features(stack: Stack, sources: Sources | None, pinned: str | None) -> Sequence[Feature]:
    """Return the features of the release that is going to predict; of the current one if there is a canary too."""
    if sources is not None and pinned == sources.digest:
        return sources.release.features
    return stack.releases.read_release(pinned or stack.releases.read_current()[0].release).features


def _show_output(output: Output, release: Release, image: bytes | None) -> None:
    from stepensemble.cli.tables.prediction import render_output

    if image is not None:
        from stepensemble.cli.tables.image_preview import render_image

        out.print(render_image(image, output, release, colour=out.color_system is not None), "")
    out.print(render_output(output, release, out.width))


@commands.command(rich_help_panel=PREDICT_PANEL)
def show(
    prediction_id: Annotated[
        str, typer.Argument(metavar="PREDICTION_ID", help="The `prediction_id` in an execution's output.")
    ],
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show one record: the input, every member's output, the prediction."""
    from stepensemble.cli.stacks import open_stack

    with (
        show_status("Reading the record") as status,
        open_stack(stack, notify=status.update, read_only=True) as opened,
    ):
        record = opened.records.read(prediction_id)
        release = None if as_json else opened.releases.read_release(record.release)
    if release is None:
        print_json(msgspec.to_builtins(record))
        return
    from stepensemble.cli.tables.prediction import render_input, render_output

    out.print(render_input(record))
    out.print(render_output(record.output, release, out.width))
    if record.failure is not None:
        out.print(str(record.failure), style="red")


@commands.command(rich_help_panel=PREDICT_PANEL)
def records(
    stack: StackOption = None,
    limit: LimitOption = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the latest records."""
    from stepensemble.cli.stacks import open_stack

    with (
        show_status("Reading the records") as status,
        open_stack(stack, notify=status.update, read_only=True) as opened,
    ):
        summaries = opened.records.latest(limit)
    if as_json:
        print_json(msgspec.to_builtins(summaries))
    elif summaries:
        from stepensemble.cli.tables.common import render_records

        out.print(render_records(summaries))
    else:
        out.print("there are no records yet")


@commands.command(rich_help_panel=PREDICT_PANEL)
def reviews(
    stack: StackOption = None,
    limit: LimitOption = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the latest predictions that a person should review."""
    from stepensemble.cli.stacks import open_stack

    with (
        show_status("Reading the review queue") as status,
        open_stack(stack, notify=status.update, read_only=True) as opened,
    ):
        latest = opened.reviews.latest(limit)
    if as_json:
        print_json(msgspec.to_builtins(latest))
    elif latest:
        from stepensemble.cli.tables.common import render_reviews

        out.print(render_reviews(latest))
    else:
        out.print("no prediction needs a review")


@commands.command(hidden=True)
def events(
    stack: StackOption = None,
    limit: LimitOption = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the latest predictions that a person should review; an earlier name of `reviews`."""
    print_note("this command is now named reviews; run: ensemble reviews")
    reviews(stack, limit, as_json=as_json)


@commands.command(rich_help_panel=PREDICT_PANEL)
def replay(
    since: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The first day, in UTC.", show_default="31 days ago")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many records, newest first.", show_default="all")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="Try the policy of another manifest, with its weights, roles and tiers."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Try another aggregation method.")] = None,
    weights: Annotated[str | None, typer.Option(help="Try other weights, such as a=2,b=0.5.")] = None,
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Aggregate recorded outputs again under another policy, without invoking a model, and show what changes."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.cli.what_if import read_day, read_what_if, replay_stack

    first, what_if = read_day(since), read_what_if(manifest, method, weights)
    with (
        show_status("Looking for the stack") as status,
        open_stack(stack, notify=status.update, read_only=True) as opened,
    ):
        status.stop()
        result = replay_stack(opened, what_if, first, limit, err)
    if as_json:
        print_json(result.to_json())
    elif result.listed:
        from stepensemble.cli.tables.replay import render_replay

        out.print(render_replay(result))
    else:
        out.print(f"there are no records since {result.since}")


def _read_event(event: str) -> object:
    """Read a payload, or the bytes of an image."""
    from stepensemble.batch.documents import kind_of
    from stepensemble.core.strict_json import read_json
    from stepensemble.imaging import sniff_image

    if kind_of(event) is not None and Path(event).is_file():
        message = f"{event} is a dataset, and `run` takes one JSON document; run: ensemble batch {event}"
        raise typer.BadParameter(message, param_hint="EVENT")
    body = b""
    try:
        body = sys.stdin.buffer.read() if event == "-" else Path(event).read_bytes()
        return body if sniff_image(body) else read_json(body)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(_explain_unreadable(event, body, error), param_hint="EVENT") from None


def _explain_unreadable(event: str, body: bytes, error: OSError | ValueError) -> str:
    from stepensemble.conversion.formats import is_model_file

    name = "standard input" if event == "-" else event
    if not isinstance(error, FileNotFoundError) and is_model_file(Path(event), body):
        file = "FILE" if event == "-" else event
        return f"{name} is a model file, and `run` takes one JSON document; run: ensemble add {file}"
    if isinstance(error, OSError):
        remedy = "go to the project's folder, or give another file, or - for standard input"
        return f"{name} cannot be read: {error.strerror}; {remedy}"
    if isinstance(error, UnicodeDecodeError):
        return f"{name} is not text in UTF-8; give a JSON document, or an image (PNG, JPEG, WebP)"
    return f"{name} is not JSON: {error}; fix it, and run the command again"
