"""Text of others is printed as it is: no markup, no emoji, nothing that moves a cursor."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from stepensemble.cli import terminal
from stepensemble.cli.terminal import PlainConsole, PlainStatus, encode_line

ESCAPES = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\x7f\u202e"
SOURCE = Path(terminal.__file__).parent


def printed(*what: object, colours: bool = False) -> str:
    file = io.StringIO()
    console = PlainConsole(file=file, width=200, force_terminal=colours, color_system="truecolor" if colours else None)
    console.print(*what, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/]", "[link=http://a]b[/link]", ":warning:", "a[0]"])
def test_brackets_and_names_of_emoji_are_text_everywhere(text: str) -> None:
    table = Table(text)
    table.add_row(text)
    assert printed(text) == f"{text}\n"
    assert printed(table).count(text) == 2


def test_a_control_character_is_shown_as_a_symbol() -> None:
    table = Table(ESCAPES)
    table.add_row(Text(ESCAPES, style="bold"))
    for shown in (printed(ESCAPES), printed(Text(ESCAPES)), printed(table)):
        assert not set(shown) & set(ESCAPES) - set("]52;cahGk=[2J31m")
        assert "␛]52;c;aGk=" in shown


def test_the_styles_of_this_package_are_kept() -> None:
    assert printed(Text("\x1b[31mok", style="bold"), colours=True) == "\x1b[1m␛[31mok\x1b[0m\n"


def test_a_status_line_is_text_too() -> None:
    file = io.StringIO()
    status = PlainStatus(Text("[bold]one"), console=PlainConsole(file=file))
    status.update("[bold]two")
    assert str(status.renderable.text) == "[bold]two"  # type: ignore[union-attr]


@given(st.text())
def test_nothing_printed_controls_a_terminal(text: str) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", printed(text) + printed(Text(text)))


@given(st.text())
def test_printed_json_has_no_control_character_and_is_the_same_document(text: str) -> None:
    line = encode_line({text: [text]})
    assert json.loads(line) == {text: [text]}
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)


def test_every_command_prints_with_these_consoles() -> None:
    # Typer makes its own consoles for help texts, which are this package's.
    made = [
        path.name
        for path in SOURCE.rglob("*.py")
        if re.search(r"\bConsole\(|from_markup|json\.dumps", path.read_text())
    ]
    assert made == ["terminal.py"]
