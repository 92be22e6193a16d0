"""Standard output for answers, standard error for everything else.

Most of what is printed was written by others: manifests, records, names of files, answers of a stack. It is shown as
the text it is. Brackets are no markup, `:names:` are no pictures, and a control character, with which a name could
move the cursor or set the clipboard, is shown by its symbol.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

REPLACEMENT = 0xFFFD
SYMBOLS = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) != "\n"}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), 0x2028, 0x2029], REPLACEMENT)
    # They turn the direction in which what follows is read.
    | dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], REPLACEMENT)
)
"""What is printed in the place of a character that does something to a terminal."""

LINE_FEED = "\u240a"


def clean_line(text: str) -> str:
    """Return a text as it is printed on one line: with symbols for control characters, line feeds too.

    What is laid out by its width is cleaned first: Rich drops some of these characters, and counts others as no cell.
    """
    return text.translate(SYMBOLS).replace("\n", LINE_FEED)


class PlainConsole(Console):
    """A console that prints text, whatever is in it, with the styles that this package gives it."""

    def __init__(self, **more: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render, with symbols for control characters; Rich's own controls are kept."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else segment.text.translate(SYMBOLS)
            yield segment if text == segment.text else Segment(text, segment.style)


class PlainStatus(Status):
    """What takes a while, as text."""

    def update(self, status: RenderableType | None = None, **more: Any) -> None:
        """Show something else."""
        super().update(Text(status) if isinstance(status, str) else status, **more)


# In a pipe or a file nothing is cut to the width of a terminal that is not there.
out = PlainConsole(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
err = PlainConsole(stderr=True)

STATUS_STYLES = {"COMPLETE": "bold green", "DEGRADED": "bold yellow", "FAILED": "bold red"}


def encode_line(document: object, indent: int | None = None) -> str:
    """Return JSON that is text to a terminal too: JSON itself leaves DEL and the controls above it as they are."""
    written = json.dumps(document, indent=indent, ensure_ascii=False)
    return written.translate({code: f"\\u{code:04x}" for code in SYMBOLS if code >= 0x7F})


def print_json(document: object) -> None:
    """Print one document."""
    sys.stdout.write(encode_line(document, indent=2) + "\n")


def announce(did: str, what: str, *, style: str = "bold green") -> None:
    """Say what was done, in a style, and to what."""
    out.print(Text.assemble((did, style), "  ", what))


def complain(name: str, message: str) -> None:
    """Say what went wrong."""
    err.print(Text.assemble((name, "bold red"), " ", message), soft_wrap=True)


def warn(message: str) -> None:
    """Say what may be wrong."""
    err.print(Text.assemble(("warning", "bold yellow"), " ", message), soft_wrap=True)


def note(message: str) -> None:
    """Say what is worth knowing."""
    err.print(Text.assemble(("note", "bold cyan"), " ", message), soft_wrap=True)


def show_status(message: str) -> Status:
    """Show what takes a while, where standard error is a terminal."""
    return PlainStatus(Text(message), console=err)
