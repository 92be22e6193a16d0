"""The command that predicts the files in a folder: `watch`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from stepensemble.cli.options import PREDICT_PANEL, ManifestOption, StackOption, read_project_manifest
from stepensemble.cli.terminal import STATUS_STYLES, encode_line, err, out, print_note, print_warning, show_status

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
if TYPE_CHECKING:
    from stepensemble.cli.folder_watch import FileResponse

commands = typer.Typer()


@commands.command(rich_help_panel=PREDICT_PANEL)
def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to watch.", show_default=False)],
    outbox: Annotated[
        Path | None, typer.Option(help="The folder for responses.", show_default="the folder outbox in FOLDER")
    ] = None,
    manifest: ManifestOption = None,
    stack: StackOption = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Process the files that are there, then exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per file instead.")] = False,
) -> None:
    """Predict every file that is copied into a folder, like the inbox of the stack's data bucket.

    Images and JSON files are payloads; CSV, JSON Lines and Parquet files are datasets. The response is a
    file: NAME.json, or NAME.error.json. A file with a newer response is skipped. The release is chosen as with
    `ensemble run`.
    """
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is not a folder; give one that exists", param_hint="FOLDER")
    sources = read_project_manifest(manifest) if stack is None else None
    if manifest is not None and stack is not None:
        raise typer.BadParameter(
            "a deployed stack predicts with its own release; leave one out", param_hint="--manifest"
        )

    from stepensemble.cli.folder_watch import Watch
    from stepensemble.cli.stacks import open_stack, prepare_release

    if outbox is None and (folder / "outbox").is_symlink():
        message = f"{folder / 'outbox'} is a symbolic link; name another folder for responses with --outbox"
        raise typer.BadParameter(message, param_hint="--outbox")
    failed = False
    with ExitStack() as exits:
        with show_status("Looking for the stack") as status:
            opened = exits.enter_context(open_stack(stack, notify=status.update))
            if opened.local:
                prepare_release(opened, sources, named=manifest is not None, notify=status.update, note=print_note)
        watched = Watch(opened, folder.resolve(), (outbox or folder / "outbox").resolve())
        if not once and not as_json:
            err.print(f"watching {folder}; responses go to {outbox or folder / 'outbox'}; Ctrl-C stops it", style="dim")
        try:
            with show_status("Waiting for responses" if once else "Waiting for files") as status:
                responses = watched.responses(
                    once=once,
                    on_upload=lambda name: status.update(f"Processing {name}"),
                    on_link=_warn_of_link,
                )
                for response in responses:
                    failed = failed or response.failed
                    _show(response, as_json=as_json)
        except KeyboardInterrupt:
            err.print("stopping")
    raise typer.Exit(1 if failed and once else 0)


def _warn_of_link(name: str) -> None:
    print_warning(
        f"{name} is skipped: it, or the place of its response, is a symbolic link; put a file or folder there instead"
    )


def _show(response: FileResponse, *, as_json: bool) -> None:
    if as_json:
        line = {"file": response.name, "response": str(response.path), **response.document}
        sys.stdout.write(encode_line(line) + "\n")
        sys.stdout.flush()
        return
    out.print(_describe(response), soft_wrap=True)


def _describe(response: FileResponse) -> Text:
    """Return a line with the file, its result, and where the whole response is."""
    document = response.document
    line = Text(f"{response.name}  ", style="bold")
    if response.failed:
        line.append(f"{document['error']}  ", style="bold red").append(str(document["message"]).replace("\n", " "))
        return line
    if response.results is not None:
        line.append(_count(document["rows_out"]), style="bold cyan")
        return line.append(f"  {document['rows_rejected']:,} rejected  {_shorten(response.results)}")
    predictions = response.predictions
    if len(predictions) == 1:
        (only,) = predictions
        result = only.label if isinstance(only.label, str) else "none" if only.value is None else f"{only.value:g}"
        line.append(result, style="bold cyan")
        line.append(f"  {only.score:.3f}" if isinstance(only.score, float) else "")
    else:
        line.append(_count(len(predictions)), style="bold cyan")
    status = str(document["status"])
    return line.append("  ").append(status, style=STATUS_STYLES.get(status, "")).append(f"  {_shorten(response.path)}")


def _count(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def _shorten(path: Path) -> str:
    return os.path.relpath(path)
