"""Standard output for answers, standard error for everything else."""

from __future__ import annotations

import json
import os
import sys

from rich.console import Console
from rich.status import Status
from rich.text import Text

# In a pipe or a file nothing is cut to the width of a terminal that is not there.
out = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
err = Console(stderr=True, highlight=False)

STATUS_STYLES = {"COMPLETE": "bold green", "DEGRADED": "bold yellow", "FAILED": "bold red"}


def print_json(document: object) -> None:
    """Print one document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def complain(name: str, message: str) -> None:
    """Say what went wrong."""
    err.print(f"[bold red]{name}[/]", end=" ")
    err.print(message, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Say what may be wrong."""
    err.print("[bold yellow]warning[/]", end=" ")
    err.print(message, markup=False, soft_wrap=True)


def note(message: str) -> None:
    """Say what is worth knowing."""
    err.print(Text.assemble(("note", "bold cyan"), " ", message), soft_wrap=True)


def show_status(message: str) -> Status:
    """Show what takes a while, where standard error is a terminal."""
    return err.status(message)
