"""The command line of every benchmark: a table, a file of results, the same printed as JSON."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

Result = TypeVar("Result", bound=Struct)


def make_parser(about: str | None, output: Path) -> ArgumentParser:
    """Return a parser of the options that all benchmarks take.

    Args:
        about: the benchmark's docstring.
        output: default path of its result.
    """
    parser = ArgumentParser(description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--output", type=read_path, default=output, help="where to write (default: results, beside this)"
    )
    return parser


def add_rounds(parser: ArgumentParser, rounds: int) -> None:
    """Add the option for the number of rounds."""
    parser.add_argument("--rounds", type=read_count, default=rounds, help=f"number of timed rounds (default: {rounds})")


def read_count(text: str) -> int:
    """Read a count of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is not a count: give 1 or more")
    return int(text)


def read_path(text: str) -> Path:
    """Read the path of a result; check before any measurement that its folder exists."""
    path = Path(text)
    if not path.parent.is_dir():
        raise ArgumentTypeError(f"there is no folder {path.parent}: create it first")
    return path


def report(result: Result, arguments: Namespace, format_table: Callable[[Result], str]) -> None:
    """Write a result and print it, as the arguments of `make_parser` direct."""
    text = msgspec.json.format(msgspec.json.encode(result), indent=2).decode()
    arguments.output.write_text(text + "\n", encoding="utf-8")
    print(text if arguments.json else format_table(result))
