"""Edits a JSON file that a person formatted, and changes as little of it as possible.

`append_item` and `set_value` change one place of a text and keep every other character: order, indentation, blank
lines, the format of numbers. New text is laid out like its neighbours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined] # the standard library's own reader of strings
from typing import Any

SPACE = re.compile(r"[ \t\r\n]*")
SCALAR = re.compile(r"[^\s,\]}]+")

LINE = 100
"""Characters of a line: a longer item without neighbours is split into several lines."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its position, `text[start:end]`; the nodes within it, by name or in order."""

    start: int
    end: int
    members: Mapping[str, Node] = field(default_factory=dict)
    items: tuple[Node, ...] = ()


def append_item(text: str, path: Sequence[str], item: Any) -> str:
    """Add an item to the end of the list at a path of names.

    Args:
        text: valid JSON.
        path: names from the root, such as `("members",)`.
        item: plain data.

    Raises:
        KeyError: there is nothing at that path.
    """
    node = _find(parse_nodes(text), path)
    if not node.items:
        outer = _indentation(text, node.start)
        inner = outer + _unit(text)
        written = _compact(item)
        if len(inner) + len(written) > LINE:
            written = _spread(item, inner, _unit(text))
        block = _break_lines(f"[\n{inner}{written}\n{outer}]", text)
        return f"{text[: node.start]}{block}{text[node.end :]}"
    last = node.items[-1]
    shown = text[last.start : last.end]
    indentation = _indentation(text, last.start)
    if "\n" in shown:
        written = _break_lines(_spread(item, indentation, _unit(text)), text)
    else:
        written = _compact(item, padded=shown.startswith("{ "))
    separator = _separator(text, node)
    return f"{text[: last.end]}{separator}{written}{text[last.end :]}"


def set_value(text: str, path: Sequence[str | int], value: Any) -> str:
    """Set the value at a path of names and indexes; a new name is added to its object.

    A value that is already equal keeps its text.

    Raises:
        KeyError: there is no object or list at the path's parent.
    """
    root = parse_nodes(text)
    *parents, name = path
    parent = _find(root, parents)
    if isinstance(name, int):
        node = parent.items[name]
    elif name in parent.members:
        node = parent.members[name]
    else:
        return _add_member(text, parent, name, value)
    if json.loads(text[node.start : node.end]) == value:
        return text
    return f"{text[: node.start]}{_compact(value)}{text[node.end :]}"


def parse_nodes(text: str) -> Node:
    """Find every value of a JSON text."""
    start = _skip(text, 1 if text.startswith("\ufeff") else 0)
    return _parse(text, start)


def _parse(text: str, start: int) -> Node:
    match text[start]:
        case "{":
            return _parse_object(text, start)
        case "[":
            return _parse_list(text, start)
        case '"':
            return Node(start, scanstring(text, start + 1)[1])
        case _:
            found = SCALAR.match(text, start)
            return Node(start, found.end() if found else start)


def _parse_object(text: str, start: int) -> Node:
    members: dict[str, Node] = {}
    at = _skip(text, start + 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1)
        at = _skip(text, _skip(text, at) + 1)  # past the colon
        members[name] = _parse(text, at)
        at = _skip_comma(text, members[name].end)
    return Node(start, at + 1, members=members)


def _parse_list(text: str, start: int) -> Node:
    items: list[Node] = []
    at = _skip(text, start + 1)
    while text[at] != "]":
        items.append(_parse(text, at))
        at = _skip_comma(text, items[-1].end)
    return Node(start, at + 1, items=tuple(items))


def _skip(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def _skip_comma(text: str, at: int) -> int:
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def _find(node: Node, path: Sequence[str | int]) -> Node:
    for name in path:
        node = node.items[name] if isinstance(name, int) else node.members[name]
    return node


def _add_member(text: str, parent: Node, name: str, value: Any) -> str:
    entry = f"{json.dumps(name)}: {_compact(value)}"
    if not parent.members:
        return f"{text[: parent.start]}{{{entry}}}{text[parent.end :]}"
    last = list(parent.members.values())[-1]
    first = parent.start + 1
    lead = text[first : _skip(text, first)]  # the space before the first member is put before each
    separator = f",{lead}" if "\n" in lead else ", "
    return f"{text[: last.end]}{separator}{entry}{text[last.end :]}"


def _separator(text: str, node: Node) -> str:
    """Return the text between the items of a list."""
    if len(node.items) > 1:
        return text[node.items[-2].end : node.items[-1].start]
    lead = text[node.start + 1 : node.items[0].start]
    return f",{lead}" if lead else ", "


def _indentation(text: str, at: int) -> str:
    """Return the blanks at the beginning of the line that holds a position."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    """Return the first indentation in a text, its unit of indentation; two blanks if it has none."""
    found = re.search(r"\n([ \t]+)\S", text)
    return found.group(1) if found else "  "


def _compact(value: Any, *, padded: bool = False) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return f"{{ {written[1:-1]} }}" if padded and written.startswith("{") else written


def _spread(item: Any, indentation: str, unit: str) -> str:
    """Write an object with one line for each member, like the shipped manifests."""
    if not isinstance(item, Mapping) or not item:
        return _compact(item)
    inner = indentation + unit
    lines = [f"{inner}{json.dumps(name)}: {_compact(value)}" for name, value in item.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indentation}}}"


def _break_lines(written: str, text: str) -> str:
    """Use the line ends of a text."""
    return written.replace("\n", "\r\n") if "\r\n" in text else written
