"""Standard output for results, standard error for everything else.

Most of what is printed comes from others: manifests, records, file names, responses of a stack. It is printed as plain
text. Brackets are not markup, `:names:` are not emoji, and a control character, with which a name could move the cursor
or set the clipboard, is shown as a symbol.
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
    # Characters that change the direction of the text after them.
    | dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], REPLACEMENT)
)
"""Replacements for characters that control a terminal."""

LINE_FEED = "\u240a"


def clean_line(text: str) -> str:
    """Return a text as it is printed on one line: with symbols for control characters, including line feeds.

    Clean a text before its width is measured: Rich drops some of these characters and gives others no width.
    """
    return text.translate(SYMBOLS).replace("\n", LINE_FEED)


class PlainConsole(Console):
    """A console that prints any text as it is, with the styles of this package only."""

    def __init__(self, **more: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with symbols for control characters; keep Rich's own control codes."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else segment.text.translate(SYMBOLS)
            yield segment if text == segment.text else Segment(text, segment.style)


class PlainStatus(Status):
    """A status line that shows plain text."""

    def update(self, status: RenderableType | None = None, **more: Any) -> None:
        """Show another text."""
        super().update(Text(status) if isinstance(status, str) else status, **more)


# A pipe or a file has no width, so lines are not cut to that of a narrow terminal.
out = PlainConsole(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
err = PlainConsole(stderr=True)

STATUS_STYLES = {"COMPLETE": "bold green", "DEGRADED": "bold yellow", "FAILED": "bold red"}


def encode_line(document: object, indent: int | None = None) -> str:
    """Return JSON that is safe to print: JSON itself does not escape DEL and the control characters above it."""
    encoded = json.dumps(document, indent=indent, ensure_ascii=False)
    return encoded.translate({code: f"\\u{code:04x}" for code in SYMBOLS if code >= 0x7F})


def print_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(encode_line(document, indent=2) + "\n")


def print_state(state: str, message: str, *, style: str = "bold green") -> None:
    """Print how a command ended: a word such as "published", then the details."""
    out.print(Text.assemble((state, style), "  ", message))


def print_error(name: str, message: str) -> None:
    """Print an error on standard error."""
    err.print(Text.assemble((name, "bold red"), " ", message), soft_wrap=True)


def print_warning(message: str) -> None:
    """Print a warning on standard error."""
    err.print(Text.assemble(("warning", "bold yellow"), " ", message), soft_wrap=True)


def print_note(message: str) -> None:
    """Print a note on standard error."""
    err.print(Text.assemble(("note", "bold cyan"), " ", message), soft_wrap=True)


def show_status(message: str) -> Status:
    """Show what the command is doing, if standard error is a terminal."""
    return PlainStatus(Text(message), console=err)
