"""Checks plain JSON data against a msgspec type and reports every problem, not only the first.

msgspec's own decoder stops at the first mismatch. This walks the same types (`msgspec.inspect`), so the structures
in `core.schema` are the only definition, for the decoder, the published JSON Schema and this check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import inspect

from stepensemble.core.problems import Problem, enumerate_values, show, suggest

NUMBER_BOUND = re.compile(r"`(int|float)` (>=|<=|>|<) (.+)")
"""How msgspec writes the bound of a number."""

KINDS = {"int": "a whole number", "float": "a number"}
BOUNDS = {">": "greater than", ">=": "of at least", "<": "less than", "<=": "of at most"}


def check_structure(data: object, expected: Any, path: str = "$") -> list[Problem]:
    """List every problem that keeps `data` (decoded JSON) from being an instance of the type `expected`."""
    return list(_check(data, inspect.type_info(expected), path))


def _check(data: object, kind: inspect.Type, path: str) -> Iterator[Problem]:
    match kind:
        case inspect.Metadata(type=inner):
            yield from _check(data, inner, path)
        case inspect.AnyType():
            return
        case inspect.UnionType(types=types):
            yield from _check_union(data, types, path)
        case inspect.StructType():
            yield from _check_struct(data, kind, path)
        case inspect.LiteralType(values=values):
            if not any(type(data) is type(value) and data == value for value in values):
                remedy = f"use one of {enumerate_values(values)}{suggest(data, values)}"
                yield Problem(path, f"{show(data)} is not allowed", remedy)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            yield from _check_array(data, item, kind, path)
        case inspect.DictType(value_type=value_type):
            yield from _check_mapping(data, value_type, path)
        case _:
            yield from _check_scalar(data, kind, path)


def _check_mapping(data: object, value_type: inspect.Type, path: str) -> Iterator[Problem]:
    if not isinstance(data, Mapping):
        yield _wrong_type(data, path, "an object")
        return
    for key, value in data.items():
        yield from _check(value, value_type, f"{path}.{key}")


def _check_union(data: object, types: tuple[inspect.Type, ...], path: str) -> Iterator[Problem]:
    kinds = [kind for kind in types if not isinstance(kind, inspect.NoneType)]
    if data is None and len(kinds) < len(types):
        return
    structs = [kind for kind in kinds if isinstance(kind, inspect.StructType)]
    if len(structs) > 1:
        yield from _check_tagged(data, structs, path)
        return
    # If a list is one of several alternatives, problems inside a list are reported for its entries.
    fitting = kinds if len(kinds) == 1 else [kind for kind in kinds if _has_form(data, kind)]
    found = [list(_check(data, kind, path)) for kind in fitting]
    if not fitting:
        yield _wrong_type(data, path, " or ".join(dict.fromkeys(map(_word, kinds))))
    elif all(found):
        yield from found[0]


def _check_tagged(data: object, structs: list[inspect.StructType], path: str) -> Iterator[Problem]:
    if not isinstance(data, Mapping):
        yield _wrong_type(data, path, "an object")
        return
    tag_field = str(structs[0].tag_field)
    tags = [struct.tag for struct in structs]
    if tag_field not in data:
        yield Problem(path, f'"{tag_field}" is missing', f'add "{tag_field}" with one of {enumerate_values(tags)}')
    elif data[tag_field] not in tags:
        tag = data[tag_field]
        yield Problem(
            f"{path}.{tag_field}",
            f"{show(tag)} is not allowed",
            f"use one of {enumerate_values(tags)}{suggest(tag, tags)}",
        )
    else:
        yield from _check_struct(data, structs[tags.index(data[tag_field])], path)


def _check_struct(data: object, kind: inspect.StructType, path: str) -> Iterator[Problem]:
    if not isinstance(data, Mapping):
        yield _wrong_type(data, path, "an object")
        return
    fields = {field.encode_name: field for field in kind.fields}
    for key, value in data.items():
        if key in fields:
            yield from _check(value, fields[key].type, f"{path}.{key}")
        elif key == kind.tag_field:
            if value != kind.tag:
                yield Problem(f"{path}.{key}", f"{show(value)} is not allowed", f"use {show(kind.tag)}")
        else:
            known = [name for name in fields if name not in data]
            yield Problem(f"{path}.{key}", f"{show(key)} is not a known key", f"remove it{suggest(key, known)}")
    for name, field in fields.items():
        if field.required and name not in data:
            yield Problem(path, f'"{name}" is missing', f'add "{name}" ({_word(field.type)})')


def _check_array(
    data: object, item: inspect.Type, kind: inspect.VarTupleType | inspect.ListType, path: str
) -> Iterator[Problem]:
    if not isinstance(data, list | tuple):
        yield _wrong_type(data, path, "a list")
        return
    if kind.min_length is not None and len(data) < kind.min_length:
        yield Problem(path, f"has {len(data)} entries", f"give at least {kind.min_length}")
    if kind.max_length is not None and len(data) > kind.max_length:
        yield Problem(path, f"has {len(data)} entries", f"give at most {kind.max_length}")
    for index, value in enumerate(data):
        yield from _check(value, item, f"{path}[{index}]")


def _has_form(data: object, kind: inspect.Type) -> bool:
    """Return whether data has the JSON form of a kind; its contents are not checked."""
    match kind:
        case inspect.Metadata(type=inner):
            return _has_form(data, inner)
        case inspect.BoolType():
            return isinstance(data, bool)
        case inspect.StrType():
            return isinstance(data, str)
        case inspect.IntType():
            return isinstance(data, int) and not isinstance(data, bool)
        case inspect.FloatType():
            return isinstance(data, int | float) and not isinstance(data, bool)
        case inspect.VarTupleType() | inspect.ListType():
            return isinstance(data, list | tuple)
        case inspect.LiteralType(values=values):
            return any(type(data) is type(value) for value in values)
        case _:
            return isinstance(data, Mapping)


def _check_scalar(data: object, kind: inspect.Type, path: str) -> Iterator[Problem]:
    if not _has_form(data, kind):
        yield _wrong_type(data, path, _word(kind))
        return
    # msgspec checks bounds itself, one value at a time.
    try:
        msgspec.convert(data, _annotated(kind))
    except msgspec.ValidationError as error:
        yield Problem(path, f"{show(data)} is out of bounds", _bound(str(error)))


def _annotated(kind: inspect.Type) -> Any:
    python_type = {
        inspect.BoolType: bool,
        inspect.StrType: str,
        inspect.IntType: int,
        inspect.FloatType: float,
    }[type(kind)]
    names = ("gt", "ge", "lt", "le", "pattern", "min_length", "max_length")
    bounds = {name: getattr(kind, name) for name in names if getattr(kind, name, None) is not None}
    return Annotated[python_type, msgspec.Meta(**bounds)] if bounds else python_type


def _bound(message: str) -> str:
    """Describe the bound that a value exceeds, from msgspec's message."""
    bound = message.removeprefix("Expected ")
    if bound == message:  # such as an integer that no float can hold: "Number out of range"
        return "use a number closer to 0"
    number = NUMBER_BOUND.fullmatch(bound)
    if number is not None:
        return f"use {KINDS[number[1]]} {BOUNDS[number[2]]} {float(number[3]):.15g}"
    text = bound.replace("`", "").removeprefix("str ").replace("matching regex", "that matches")
    return f"use a string {text}"


def _wrong_type(data: object, path: str, expected: str) -> Problem:
    return Problem(path, f"{show(data)} is not {expected}", f"write {expected}")


def _word(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata(type=inner):
            return _word(inner)
        case inspect.LiteralType(values=values):
            return f"one of {enumerate_values(values)}"
        case inspect.UnionType(types=types):
            words = [_word(part) for part in types if not isinstance(part, inspect.NoneType)]
            return " or ".join(dict.fromkeys(words))
        case _:
            return {
                inspect.BoolType: "true or false",
                inspect.StrType: "a string",
                inspect.IntType: "a whole number",
                inspect.FloatType: "a number",
                inspect.VarTupleType: "a list",
                inspect.ListType: "a list",
            }.get(type(kind), "an object")
