"""The command that watches a folder."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from stepensemble.cli.options import ManifestOption, StackOption, read_project_manifest
from stepensemble.cli.terminal import STATUS_STYLES, encode_line, err, note, out, show_status, warn

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
if TYPE_CHECKING:
    from stepensemble.cli.folder_watch import FileResponse

commands = typer.Typer()


@commands.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="Where files are dropped.", show_default=False)],
    outbox: Annotated[
        Path | None, typer.Option(help="Where answers go.", show_default="the folder outbox in FOLDER")
    ] = None,
    manifest: ManifestOption = None,
    stack: StackOption = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Answer the files that are there, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a file instead.")] = False,
) -> None:
    """Answer every file that is dropped into a folder, as the stack's bucket answers what arrives in its inbox.

    Pictures and JSON are predictions, CSV, JSON Lines and Parquet runs of the batch. Each answer is a file: NAME.json,
    or NAME.error.json. Files that have one that is newer than they are left alone. The release that
    predicts is that of `run`.
    """
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder", param_hint="FOLDER")
    sources = read_project_manifest(manifest) if stack is None else None
    if manifest is not None and stack is not None:
        raise typer.BadParameter(
            "a deployed stack answers from its own release; leave one out", param_hint="--manifest"
        )

    from stepensemble.cli.folder_watch import Watch
    from stepensemble.cli.stacks import open_stack, settle_release

    if outbox is None and (folder / "outbox").is_symlink():
        raise typer.BadParameter(f"{folder / 'outbox'} is a symbolic link; say by --outbox where answers go")
    failed = False
    with ExitStack() as exits:
        with show_status("Looking for the stack") as status:
            opened = exits.enter_context(open_stack(stack, notify=status.update))
            if opened.local:
                settle_release(opened, sources, named=manifest is not None, notify=status.update, remark=note)
        watched = Watch(opened, folder.resolve(), (outbox or folder / "outbox").resolve())
        if not once and not as_json:
            err.print(f"watching {folder}; answers go to {outbox or folder / 'outbox'}; Ctrl-C stops it", style="dim")
        try:
            with show_status("Waiting for answers" if once else "Waiting for files") as status:
                answers = watched.answers(
                    once=once,
                    starts=lambda name: status.update(f"Asking about {name}"),
                    passes_over=_warn_of_link,
                )
                for answered in answers:
                    failed = failed or answered.failed
                    _show(answered, as_json=as_json)
        except KeyboardInterrupt:
            err.print("stopping")
    raise typer.Exit(1 if failed and once else 0)


def _warn_of_link(name: str) -> None:
    warn(f"{name} is not read, since it or the place of its answer is a symbolic link; put the file itself there")


def _show(answered: FileResponse, *, as_json: bool) -> None:
    if as_json:
        told = {"file": answered.name, "answer": str(answered.place), **answered.document}
        sys.stdout.write(encode_line(told) + "\n")
        sys.stdout.flush()
        return
    out.print(_describe(answered), soft_wrap=True)


def _describe(answered: FileResponse) -> Text:
    """Return a line: the file, what came of it, and where more is said."""
    document = answered.document
    line = Text(f"{answered.name}  ", style="bold")
    if answered.failed:
        line.append(f"{document['error']}  ", style="bold red").append(str(document["message"]).replace("\n", " "))
        return line
    if answered.results is not None:
        line.append(_count(document["rows_out"]), style="bold cyan")
        return line.append(f"  {document['rows_rejected']:,} rejected  {_shorten(answered.results)}")
    predictions = answered.predictions
    if len(predictions) == 1:
        (only,) = predictions
        said = only.label if isinstance(only.label, str) else "none" if only.value is None else f"{only.value:g}"
        line.append(said, style="bold cyan")
        line.append(f"  {only.score:.3f}" if isinstance(only.score, float) else "")
    else:
        line.append(_count(len(predictions)), style="bold cyan")
    status = str(document["status"])
    return line.append("  ").append(status, style=STATUS_STYLES.get(status, "")).append(f"  {_shorten(answered.place)}")


def _count(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def _shorten(path: Path) -> str:
    return os.path.relpath(path)
