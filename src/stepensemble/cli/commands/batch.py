"""The commands that predict whole datasets: `batch`, and the schedule that starts it every day."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepensemble.batch.documents import Format, LabelValues, Options, Request
from stepensemble.cli.batch_options import (
    check_encoding,
    read_days,
    read_moment,
    read_separator,
    read_share,
    read_size,
)
from stepensemble.cli.options import DATASETS_PANEL, JsonOption, ManifestOption, StackOption, read_project_manifest
from stepensemble.cli.terminal import err, out, print_error, print_json, print_note, show_status
from stepensemble.storage.keys import RESULTS

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
if TYPE_CHECKING:
    from stepensemble.cli.batch_runs import Progress
    from stepensemble.cli.local_datasets import LocalDataset
    from stepensemble.cli.stacks import Stack

DEFAULT_FOLDER = Path("results")
"""Where the local stack's results are downloaded to."""

DATE = "{date}"
"""A placeholder for the date in the name of a dataset."""

UPCOMING = 5
"""How many times of a schedule are shown."""

DAY = "YYYY-MM-DD"

commands = typer.Typer()
schedule = typer.Typer(
    help="Show the schedules of the daily batch and of the warm-up, and when they start next.",
    invoke_without_command=True,
)
commands.add_typer(schedule, name="schedule", rich_help_panel=DATASETS_PANEL)


@commands.command(rich_help_panel=DATASETS_PANEL)
def batch(
    dataset: Annotated[
        str, typer.Argument(metavar="INPUT", help="A file, a folder, or s3://…; {date} is replaced by the date.")
    ],
    day: Annotated[
        str | None, typer.Option("--date", metavar=DAY, help="The day of the run.", show_default="today, in UTC")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar=DAY, help="The first of several days; each day is one run.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar=DAY, help="The last of several days.")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="A folder to download the results to, or s3://DATA-BUCKET/results….",
            show_default="results, for the local stack",
        ),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(
            help="The release that predicts: the first hex digits of its digest.", show_default="the current one"
        ),
    ] = None,
    manifest: ManifestOption = None,
    id_: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="COLUMN", help="The column with the rows' ids.", show_default="file and row number"
        ),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Copy a column to the results; can be repeated.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column with the labels, to measure accuracy.")
    ] = None,
    label_values: Annotated[
        LabelValues | None,
        typer.Option(help="Whether labels are names or indexes of classes.", show_default="detected"),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Format of the results.")] = "parquet",
    encoding: Annotated[str, typer.Option(help="Encoding of CSV and JSON Lines, by its name in Python.")] = "utf-8",
    separator: Annotated[str, typer.Option(help="Character between the fields of CSV, or tab.")] = ",",
    shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Bytes of input per shard, such as 512KB.")] = "16MB",
    max_rejected: Annotated[
        str,
        typer.Option(metavar="SHARE", help="Fail the run if a larger share of rows is rejected: 0.05, or 5%."),
    ] = "50%",
    max_failed_shards: Annotated[int, typer.Option(min=0, help="Fail the run if more shards fail.")] = 0,
    stack: StackOption = None,
    *,
    spreadsheet: Annotated[
        bool,
        typer.Option("--spreadsheet", help="In CSV results, put ' before text that would be a formula."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Predict a whole dataset: CSV, JSON Lines or Parquet, one file or many.

    The same dataset, release, date and options are the same run: a second command joins it while it works, returns its
    result when it is complete, and resumes it after a failure. The current release predicts, as with `ensemble run`; a
    canary does not.
    """
    days = read_days(day, first, last, datetime.now(UTC))  # before the stack starts and the upload, which take time
    options = Options(
        id=id_,
        keep=tuple(dict.fromkeys(keep or ())),
        label=label,
        format=format_,
        encoding=check_encoding(encoding),
        separator=read_separator(separator),
        shard_size=read_size(shard_size),
        max_rejected=read_share(max_rejected),
        max_failed_shards=max_failed_shards,
        label_values=label_values,
        spreadsheet=spreadsheet,
    )
    if label_values is not None and label is None:
        message = "there are no labels to read; name their column with --label"
        raise typer.BadParameter(message, param_hint="--label-values")
    if spreadsheet and format_ != "csv":
        raise typer.BadParameter("it applies to CSV results only; add --format csv", param_hint="--spreadsheet")
    if manifest is not None and (release is not None or stack is not None):
        other = "--release" if release is not None else "--stack"
        raise typer.BadParameter(
            f"{other} already decides which release predicts; leave one out", param_hint="--manifest"
        )
    local = (
        {}
        if dataset.startswith("s3://")
        else {each: _find_input(dataset, each, several=len(days) > 1) for each in days}
    )
    sources = read_project_manifest(manifest) if stack is None and release is None else None

    from stepensemble.cli.batch_runs import start_run
    from stepensemble.cli.stacks import open_stack, prepare_release

    with ExitStack() as exits:
        with show_status("Looking for the stack") as status:
            opened = exits.enter_context(open_stack(stack, notify=status.update))
            pinned = release
            if opened.local and release is None:
                named = manifest is not None
                pinned = prepare_release(opened, sources, named=named, notify=status.update, note=print_note)
        prefix, folder = _read_output(output, opened)
        documents = []
        for each in days:
            uri = _upload(local[each], opened, quiet=as_json) if local else dataset
            request = Request(dataset=uri, date=each, release=pinned, output=prefix, options=options)
            documents.append(_run(opened, start_run(opened, request), folder, as_json=as_json))
    _finish(documents, several=first is not None, as_json=as_json)


@schedule.callback()
def schedule_shown(context: typer.Context, stack: StackOption = None, *, as_json: JsonOption = False) -> None:
    """Show the schedules of the daily batch and of the warm-up, and when they start next."""
    if context.invoked_subcommand is not None:
        return
    from stepensemble.cli.schedules import read_schedule
    from stepensemble.cli.stacks import open_stack

    with show_status("Reading the schedule") as status, open_stack(stack, notify=status.update) as opened:
        daily, warmup = read_schedule(opened), read_schedule(opened, opened.warmup_schedule)
    now = datetime.now(UTC)
    days, soon = daily.next_times(now, UPCOMING), warmup.next_times(now, 1)
    if as_json:
        print_json(daily.to_json(days) | {"warmup": warmup.to_json(soon)})
        return
    from stepensemble.cli.tables.batch import render_schedule

    out.print(render_schedule(daily, days))
    out.print("", render_schedule(warmup, soon), sep="\n")


@schedule.command("fire")
def schedule_fire(
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="The time of the start, in ISO 8601.", show_default="now")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A folder to download the results to.", show_default="results, for the local stack"),
    ] = None,
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Start the scheduled batch now, with the input of the given time, even if the schedule is disabled."""
    moment = read_moment(at)
    from stepensemble.cli.schedules import fire, read_schedule
    from stepensemble.cli.stacks import open_stack

    with ExitStack() as exits:
        with show_status("Reading the schedule") as status:
            opened = exits.enter_context(open_stack(stack, notify=status.update))
            daily = read_schedule(opened)
        folder = output or (DEFAULT_FOLDER if opened.local else None)
        document = _run(opened, fire(opened, daily, moment), folder, as_json=as_json)
    _finish([document], several=False, as_json=as_json)


def _run(stack: Stack, execution: str, folder: Path | None, *, as_json: bool) -> dict[str, Any]:
    """Wait for the end of an execution, show its result, and return that as a document."""
    from stepensemble.cli.batch_runs import fetch_results, follow_run, read_summary

    try:
        with _progress_bar(quiet=as_json) as watch:
            followed = follow_run(stack, execution, watch, (lambda _: None) if as_json else print_note)
    except KeyboardInterrupt:
        _explain_interruption(stack)
        raise
    summary = read_summary(stack, followed)
    fetched = None if summary is None or folder is None else fetch_results(stack, summary, folder)
    document = followed.to_json(summary) | {"folder": None if fetched is None else str(fetched)}
    if as_json:
        return document
    if summary is not None:
        from stepensemble.cli.tables.batch import render_run

        out.print(render_run(followed, summary, fetched))
    if followed.error is not None:
        print_error(followed.error, followed.cause or "")
    return document


def _finish(documents: Sequence[dict[str, Any]], *, several: bool, as_json: bool) -> None:
    if as_json:
        print_json({"runs": documents} if several else documents[0])
    if any(document["status"] != "SUCCEEDED" for document in documents):
        raise typer.Exit(1)


def _explain_interruption(stack: Stack) -> None:
    from stepensemble.cli.stacks import find_project, state_folder
    from stepensemble.local.stack import find_running

    if not stack.local or find_running(state_folder(find_project(Path.cwd()))) is not None:
        err.print("the run continues; the same command joins it, or returns its result")
    else:
        err.print("the run stops with the local stack; the same command resumes it, without the finished shards")


@contextmanager
def _progress_bar(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show the progress of a run, if standard error is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("shards"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bars:
        task = bars.add_task("Planning", total=None, speed="")
        first: list[tuple[float, int]] = []

        def watch(progress: Progress) -> None:
            now = time.monotonic()
            if not first:
                first.append((now, progress.rows_finished))
            since, before = first[0]
            rows = progress.rows_finished - before
            speed = f"{rows / (now - since):,.0f} rows/s" if rows and now > since else ""
            predicted = progress.finished == progress.shards
            description = "Summarizing" if predicted else "Predicting"
            bars.update(task, description=description, total=progress.shards, completed=progress.finished, speed=speed)

        yield watch


def _upload(dataset: LocalDataset, stack: Stack, *, quiet: bool) -> str:
    """Upload a dataset to the data bucket, and return its S3 URI."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    from stepensemble.cli.local_datasets import upload_dataset

    columns = (TextColumn("Uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bars:
        task = bars.add_task("", total=dataset.size)
        upload_dataset(dataset, stack.data, lambda count: bars.advance(task, count))
    return stack.data.pointer(dataset.key).s3


def _find_input(named: str, day: str, *, several: bool) -> LocalDataset:
    """Find the dataset of a day on this machine: by `{date}` in its name, or in a folder `dt=YYYY-MM-DD`."""
    from stepensemble.cli.local_datasets import find_local

    path = Path(named.replace(DATE, day))
    if (path / f"dt={day}").is_dir():
        path /= f"dt={day}"
    elif several and DATE not in named:
        message = f"{path} has no folder dt={day}, and its name has no {DATE}; give every day a dataset of its own"
        raise typer.BadParameter(message, param_hint="INPUT")
    if not path.exists():
        raise typer.BadParameter(f"{path} does not exist; give a file, a folder, or s3://…", param_hint="INPUT")
    found = find_local(path)
    if not found.files:
        raise typer.BadParameter(f"{path} has no files; give a folder with the dataset's files", param_hint="INPUT")
    return found


def _read_output(output: str | None, stack: Stack) -> tuple[str, Path | None]:
    """Return the results' prefix in the data bucket, and the folder to download them to, if any."""
    if output is None:
        return RESULTS, DEFAULT_FOLDER if stack.local else None
    if not output.startswith("s3://"):
        return RESULTS, Path(output)
    bucket, _, prefix = output.removeprefix("s3://").partition("/")
    if bucket != stack.data.name or not prefix.startswith(RESULTS):
        message = f"{output} is not below results in the data bucket; write s3://{stack.data.name}/{RESULTS}"
        raise typer.BadParameter(message, param_hint="--output")
    return prefix.rstrip("/"), None
