"""Parses requests of TensorFlow Serving's REST protocol to rows of features or to tensors.

`predict` takes rows (`instances`) or columns (`inputs`); `classify` and `regress` take `examples` and the features that
they share (`context`). Unknown keys are ignored, as TensorFlow Serving does.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import structs

from stepensemble.core.errors import InvalidPayload
from stepensemble.core.payload import MAX_ROWS
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.preprocessing.encoding import Images, encode, normalize, refuse_images
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.schema.manifest import Feature, ImageFeature, TensorFeature
from stepensemble.serving.servables import FEATURES, Input, Servable, list_inputs, list_signature_names

Form = Literal["rows", "columns", "examples"]
"""The form of a request, and of its response."""

PLACE = re.compile(r"\$\.instances\[(\d+)\](.*)", flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A parsed request.

    Attributes:
        form: of the request.
        rows: features by name, one mapping for each row; None if tensors were sent.
        tensors: a member's inputs by name, `(rows, *shape)` each; None if features were sent.
        bare: whether numbers were sent without a list around each, to a model that takes one number for each row.
    """

    form: Form
    rows: Sequence[Mapping[str, Any]] | None = None
    tensors: Columns | None = None
    bare: bool = False


@dataclass(frozen=True, slots=True)
class _NamedValues:
    """Values by name, tensors or features; `single` if the caller omitted the only name."""

    columns: Mapping[str, Sequence[Any]]
    rows: int
    single: bool = False


def parse_predict(body: object, servable: Servable) -> PredictRequest:
    """Parse a request to `:predict`.

    Args:
        body: the JSON of the request; NaN and infinities are rejected.
        servable: the ensemble or member that the request names.

    Raises:
        InvalidPayload: the request has a wrong form, or tensors are wrong (all are listed); `encode_rows` checks
            features later.
    """
    data = _read_object(body, '{"instances": […]} or {"inputs": …}')
    by_features = _uses_features(data, servable)
    if ("instances" in data) == ("inputs" in data):
        message = "has both instances and inputs" if "instances" in data else "has neither instances nor inputs"
        raise _invalid("$", message, 'give "instances" for rows or "inputs" for columns')
    if "instances" in data:
        return _parse_rows(_read_list(data["instances"], "$.instances"), servable, "rows", by_features=by_features)
    return _parse_columns(data["inputs"], servable, by_features=by_features)


def parse_examples(body: object, servable: Servable) -> PredictRequest:
    """Parse a request to `:classify` or `:regress`; the features in `context` belong to every example.

    Raises:
        InvalidPayload: as `parse_predict`; or a feature is given in the context and in an example.
    """
    data = _read_object(body, '{"examples": [{…}, …]}')
    by_features = _uses_features(data, servable)
    if "examples" not in data:
        raise _invalid("$", "has no examples", 'give "examples", a list of objects')
    examples = _read_list(data["examples"], "$.examples")
    context = data.get("context", {})
    if not isinstance(context, Mapping):
        raise _invalid("$.context", f"{show(context)} is not an object", "write an object")
    problems: list[Problem] = []
    for index, example in enumerate(examples):
        if not isinstance(example, Mapping):
            problems.append(Problem(f"$.examples[{index}]", f"{show(example)} is not an object", "write an object"))
            continue
        problems += [
            Problem(f"$.examples[{index}].{name}", "is in the context too", "give it in one place")
            for name in example
            if name in context
        ]
    if problems:
        raise InvalidPayload(problems)
    rows = [{**context, **example} for example in examples]
    return _parse_rows(rows, servable, "examples", by_features=by_features)


def encode_rows(features: Sequence[Feature], request: PredictRequest, images: Images = refuse_images) -> Columns:
    """Validate, encode and scale a request's rows of features.

    Raises:
        InvalidPayload: with every bad field, at its place in the request.
    """
    try:
        return normalize(features, request.rows or (), images=images)
    except InvalidPayload as error:
        raise InvalidPayload([relocate(problem, request.form) for problem in error.problems]) from None


def relocate(problem: Problem, form: Form) -> Problem:
    """Return a problem of `$.instances[3].Age` with the path that another form has: `$.inputs.Age[3]`."""
    found = PLACE.fullmatch(problem.path)
    if found is None or form == "rows":
        return problem
    index, rest = found.groups()
    return structs.replace(
        problem, path=f"$.inputs{rest}[{index}]" if form == "columns" else f"$.examples[{index}]{rest}"
    )


def _parse_rows(instances: Sequence[Any], servable: Servable, form: Form, *, by_features: bool) -> PredictRequest:
    objects = [isinstance(one, Mapping) and not _is_binary(one) for one in instances]
    if any(objects) and not all(objects):
        index = objects.index(False)
        raise _invalid(
            f"$.instances[{index}]", f"{show(instances[index])} is not an object", "write all rows in the same way"
        )
    if not any(objects):
        return _parse_unnamed(instances, "$.instances", servable, form, by_features=by_features)
    inputs = list_inputs(servable, {name for one in instances for name in one})
    by_features = by_features or any(_is_binary(value) for one in instances for value in one.values())
    if inputs and not by_features and all(one.keys() <= inputs.keys() for one in instances):
        columns = {name: [one.get(name) for one in instances] for name in inputs}
        return _parse_values(_NamedValues(columns, len(instances)), servable, form, by_features=False)
    if not by_features:
        _check_names({name for one in instances for name in one}, "$.instances", servable, inputs)
    return PredictRequest(form, rows=_read_features(servable.release.features, instances))


def _parse_columns(inputs: Any, servable: Servable, *, by_features: bool) -> PredictRequest:
    if not isinstance(inputs, Mapping):
        values = _read_list(inputs, "$.inputs")
        return _parse_unnamed(values, "$.inputs", servable, "columns", by_features=by_features)
    if not inputs:
        raise _invalid("$.inputs", "is empty", "give a list for each input")
    columns = {str(name): _read_list(values, f"$.inputs.{name}") for name, values in inputs.items()}
    first, rows = next((name, len(values)) for name, values in columns.items())
    problems = [
        Problem(
            f"$.inputs.{name}", f"has {len(values)} rows, and {show(first)} has {rows}", "give the same number to all"
        )
        for name, values in columns.items()
        if len(values) != rows
    ]
    if problems:
        raise InvalidPayload(problems)
    return _parse_values(_NamedValues(columns, rows), servable, "columns", by_features=by_features)


def _parse_unnamed(
    values: Sequence[Any], path: str, servable: Servable, form: Form, *, by_features: bool
) -> PredictRequest:
    by_features = by_features or all(map(_is_binary, values))
    name = _find_only_name(servable, path, by_features=by_features)
    return _parse_values(
        _NamedValues({name: values}, len(values), single=True), servable, form, by_features=by_features
    )


def _parse_values(named: _NamedValues, servable: Servable, form: Form, *, by_features: bool) -> PredictRequest:
    """Decide whether values are tensors or features; a model's own inputs take precedence.

    A base64 value is never a tensor: it is an image, or text, for a feature of the ensemble.
    """
    inputs = list_inputs(servable, named.columns)
    by_features = by_features or any(_is_binary(value) for values in named.columns.values() for value in values)
    if inputs and not by_features and named.columns.keys() <= inputs.keys():
        return _read_tensors(named, inputs, form)
    if not by_features:
        _check_names(named.columns.keys(), "$.inputs", servable, inputs)
    features = servable.release.features
    names = list(named.columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*named.columns.values(), strict=True)]
    return PredictRequest(form, rows=_read_features(features, rows))


def _check_names(names: Collection[str], path: str, servable: Servable, inputs: Mapping[str, Input]) -> None:
    """Check that some name is a feature's, where no input of the member has it."""
    features = [feature.name for feature in servable.release.features]
    if inputs and names and not set(names) & set(features):
        message = f"{enumerate_values(names)} is neither an input of {show(servable.name)} nor a feature"
        remedy = f"use {enumerate_values(inputs)}, or the features {enumerate_values(features)}"
        raise _invalid(path, message, remedy)


def _read_tensors(named: _NamedValues, inputs: Mapping[str, Input], form: Form) -> PredictRequest:
    tensors: Columns = {}
    problems: list[Problem] = []
    bare = False
    for name, one in inputs.items():
        values = named.columns.get(name, [None] * named.rows)
        if one.shape == (1,) and values and not isinstance(values[0], list):
            bare = True
            values = [value if value is None or isinstance(value, list) else [value] for value in values]
        column, reasons = encode(TensorFeature(name, shape=one.shape, dtype=one.dtype), values)
        tensors |= column
        place = "" if named.single else f".{name}"
        problems += [
            relocate(Problem(f"$.instances[{row}]{place}", *reason), form) for row, reason in sorted(reasons.items())
        ]
    if problems:
        raise InvalidPayload(problems)
    return PredictRequest(form, tensors=tensors, bare=bare)


def _read_features(features: Sequence[Feature], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as a payload has them: no lists of one value, and no base64, except for tensors and images."""
    plain = {one.name for one in features if not isinstance(one, TensorFeature | ImageFeature)}
    return [{name: _simplify(value) if name in plain else value for name, value in row.items()} for row in rows]


def _simplify(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if _is_binary(value):
        try:
            return base64.b64decode(value["b64"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return value
    return value


def _is_binary(value: object) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _find_only_name(servable: Servable, path: str, *, by_features: bool) -> str:
    """Return the name of the only input or feature, for values without a name."""
    inputs = {} if by_features else list_inputs(servable)
    names = list(inputs) or [feature.name for feature in servable.release.features]
    if len(names) > 1:
        what = "inputs" if inputs else "features"
        message = f"has no names, and {show(servable.name)} takes {len(names)} {what}: {enumerate_values(names)}"
        raise _invalid(path, message, "give each by its name")
    return names[0]


def _uses_features(data: Mapping[str, Any], servable: Servable) -> bool:
    name = data.get("signature_name", "")
    if not isinstance(name, str):
        raise _invalid("$.signature_name", f"{show(name)} is not a string", "write a string, or leave it out")
    known = list_signature_names(servable)
    if name and name not in known:
        message = f"{show(name)} is not a signature of {show(servable.name)}"
        raise _invalid("$.signature_name", message, f"use one of {enumerate_values(known)}{suggest(name, known)}")
    return name == FEATURES


def _read_object(body: object, example: str) -> Mapping[str, Any]:
    if not isinstance(body, Mapping):
        raise _invalid("$", f"{show(body)} is not an object", f"write {example}")
    return body


def _read_list(values: object, path: str) -> Sequence[Any]:
    if not isinstance(values, list):
        raise _invalid(path, f"{show(values)} is not a list", "write a list with one entry for each row")
    if not values:
        raise _invalid(path, "is empty", "give at least one row")
    if len(values) > MAX_ROWS:
        raise _invalid(path, f"has {len(values):,} rows", f"send at most {MAX_ROWS:,} in one request")
    return values


def _invalid(path: str, message: str, remedy: str) -> InvalidPayload:
    return InvalidPayload([Problem(path, message, remedy)])
