"""Write docs/reference from the code: the command line's help, and the docstrings of the public names.

    make reference

A contract test compares the pages with the code. It fails for a command, an option or a public name that has no
description.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

import stepensemble
from stepensemble.cli.app import app

FOLDER = Path(__file__).parent / "reference"
WRITTEN = "<!-- Written by docs/generate_reference.py from the code: make reference. -->\n"
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
"""Headings of a docstring in Google's style, whose entries become a list."""


def render_cli() -> str:
    """Return the page of the command line."""
    root = typer.main.get_command(app)
    parts = [
        "# The command line\n\n" + WRITTEN,
        "`ensemble COMMAND --help` prints the same. Exit codes: 0 for success, 1 where the job failed (a bad manifest "
        "or payload, no quorum, no stack), 2 for wrong usage, 130 after Ctrl-C, 143 after SIGTERM.\n",
    ]
    return "\n".join([*parts, *(_render_command(name, command) for name, command in list_commands("ensemble", root))])


def list_commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Return a command and every command below it with their full names, in the order in which help lists them."""
    yield name, command
    for part, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from list_commands(f"{name} {part}", below)


def list_parameters(command: Any) -> list[Any]:
    """Return a command's arguments and options, without hidden ones."""
    return [parameter for parameter in command.params if not parameter.hidden]


def _render_command(name: str, command: Any) -> str:
    parameters = list_parameters(command)
    arguments = [one for one in parameters if one.opts[0][0] != "-"]
    options = [one for one in parameters if one.opts[0][0] == "-"]
    usage = [name, *(["[OPTIONS]"] if options else []), *map(_name_argument, arguments)]
    if getattr(command, "commands", None):
        usage.append("COMMAND")
    parts = [f"## {name}\n", f"```text\n{' '.join(usage)}\n```\n", _markdown(command.help or "")]
    for title, listed in (("argument", arguments), ("option", options)):
        if listed:
            lines = [f"| {_name_parameter(one)} | {_describe_parameter(one)} |\n" for one in listed]
            parts.append(f"| {title} | |\n| --- | --- |\n{''.join(lines)}")
    if getattr(command, "commands", None):
        lines = [
            f"| [{part}](#{f'{name} {part}'.replace(' ', '-')}) | {_first_paragraph(below.help)} |\n"
            for part, below in command.commands.items()
            if not below.hidden
        ]
        parts.append(f"| command | |\n| --- | --- |\n{''.join(lines)}")
    return "\n".join(parts)


def _name_argument(parameter: Any) -> str:
    shown = str(parameter.metavar or parameter.name.upper()).strip("[]{}")
    shown += "…" if parameter.nargs != 1 or parameter.multiple else ""
    return shown if parameter.required else f"[{shown}]"


def _name_parameter(parameter: Any) -> str:
    if parameter.opts[0][0] != "-":
        return f"`{_name_argument(parameter)}`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.is_flag or parameter.count:
        return names
    value = str(parameter.metavar or _name_type(parameter)).replace("|", "\\|")
    return f"{names} `{value}`"


def _name_type(parameter: Any) -> str:
    wanted = parameter.type_descriptor.annotation
    if get_origin(wanted) in (Union, UnionType):
        (wanted,) = (one for one in get_args(wanted) if one is not type(None))
    if get_origin(wanted) is Literal:
        return "|".join(map(str, get_args(wanted)))
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return "|".join(str(one.value) for one in wanted)
    return str(getattr(wanted, "__name__", wanted)).upper()


def _describe_parameter(parameter: Any) -> str:
    shown = parameter.show_default
    default = shown if isinstance(shown, str) else parameter.default
    words = _cell(parameter.help or "")
    if getattr(parameter, "multiple", False):
        words += " May be repeated."
    if shown is False or default is None or isinstance(default, bool) or default in ((), []):
        return words
    return f"{words} Default: {_cell(str(getattr(default, 'value', default)))}."


def _first_paragraph(text: str | None) -> str:
    return _cell((text or "").split("\n\n")[0])


def _cell(text: str) -> str:
    return _escape(" ".join(_plain(text).split())).replace("|", "\\|")


def _markdown(text: str) -> str:
    return "\n\n".join(_escape(" ".join(part.split())) for part in _plain(text).split("\n\n")) + "\n"


def _plain(text: str) -> str:
    """Remove Rich's markup, such as [bold], and Click's markers for line breaks."""
    return (
        re.sub(r"\[/?(?:bold|italic|dim|cyan|green|red|yellow)\]", "", inspect.cleandoc(text))
        .replace("\b", "")
        .replace("\f", "")
    )


def _escape(text: str) -> str:
    """Escape the characters of Markdown's markup outside of code."""
    parts = text.split("`")
    return "`".join(part if odd % 2 else re.sub(r"([<>*_{}])", r"\\\1", part) for odd, part in enumerate(parts))


def render_python() -> str:
    """Return the page of the public names."""
    names = list(stepensemble.__all__)
    parts = [
        "# Python\n\n" + WRITTEN,
        f"Everything that is public can be imported from `stepensemble`: {', '.join(f'`{name}`' for name in names)}. "
        "[How to predict in Python](../predict.md#in-python) has examples.\n",
    ]
    for name, thing in list_public():
        parts.append(_render_name(name, thing))
    return "\n".join(parts)


def list_public() -> Iterator[tuple[str, Any]]:
    """Return every public name, and the public methods and properties of the classes among them, with what each is."""
    for name in stepensemble.__all__:
        thing = getattr(stepensemble, name)
        yield name, thing
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            fields = getattr(thing, "__dataclass_fields__", {})
            for part, value in vars(thing).items():
                if part[0] != "_" and part not in fields:
                    yield f"{name}.{part}", value


def get_docstring(thing: Any) -> str:
    """Return the name's own docstring, without inherited ones."""
    if isinstance(thing, str | bytes | int | float | tuple):  # a constant has its type's
        return ""
    return inspect.cleandoc(getattr(getattr(thing, "__func__", thing), "__doc__", None) or "")


def _render_name(name: str, thing: Any) -> str:
    level, kind, code = "##", "", name
    if inspect.isclass(thing):
        base = next(one for one in thing.__mro__[1:] if one.__name__[0] != "_")
        kind = "class"
        if issubclass(thing, BaseException):
            kind, code = "exception", f"{name}({base.__name__})"
    elif isinstance(thing, str | bytes | int | float | tuple):
        code = f"{name}: {type(thing).__name__}"
    elif isinstance(thing, property):
        level, kind = "###", "property"
    else:
        level = "###" if "." in name else "##"
        kind = (
            "classmethod"
            if isinstance(thing, classmethod)
            else "staticmethod"
            if isinstance(thing, staticmethod)
            else ""
        )
        code = f"{name}{_render_signature(getattr(thing, '__func__', thing))}"
    title = name.replace("__", r"\_\_")
    return f"{level} {title}\n\n```python\n{f'{kind} {code}'.strip()}\n```\n\n{_render_docstring(get_docstring(thing))}"


def _render_signature(function: Any) -> str:
    signature = inspect.signature(function)
    shown: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(one[0] == "*" for one in shown):
            shown.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        annotation = "" if parameter.annotation is parameter.empty else f": {_render_annotation(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        shown.append(f"{star}{parameter.name}{annotation}{default}")
    returned = signature.return_annotation
    arrow = "" if returned is signature.empty else f" -> {_render_annotation(returned)}"
    return f"({', '.join(shown)}){arrow}"


def _render_annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _render_docstring(text: str) -> str:
    """Return a docstring in Google's style as Markdown."""
    written: list[str] = []
    section = ""
    examples = False
    for line in text.splitlines():
        heading = line[:-1] if line.endswith(":") else ""
        if heading in SECTIONS:
            section = heading
            written += ["", f"**{heading}**", ""]
            continue
        if line and not line.startswith(" "):
            section = ""
        if section in ("Args", "Attributes", "Raises") and (entry := re.fullmatch(r" {4}(\*{0,2}\w+): (.*)", line)):
            line = f"- `{entry[1]}`: {entry[2]}"
        elif section:
            line = f"  {line.strip()}" if section in ("Args", "Attributes", "Raises") else line.strip()
        starts = line.strip().startswith(">>>")
        if starts and not examples:
            written += ["```pycon"]
            examples = True
        elif examples and not line.strip():
            written += ["```"]
            examples = False
        written.append(line.strip() if examples else line)
    if examples:
        written.append("```")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in written)).strip() + "\n"


PAGES = {"cli.md": render_cli, "python.md": render_python}


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
