"""From `template.yaml` to a template that moto can create.

Four stages, each a function: read the YAML; expand the loops of AWS::LanguageExtensions (with SAM CLI's code);
translate the serverless resources (aws-sam-translator, without a request to AWS); adapt the result to moto. The result
is cached in a file, because importing the two translators takes as long as starting the rest of the stack.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.local.errors import TemplateRefused

REGION = "us-east-1"
CACHE_VERSION = 5
"""Of the cached file; raised whenever this module makes something else of the same template."""

NO_CODE = "s3://local/code.zip"
"""Placeholder for code on the local disk while the serverless resources are translated, which accepts only S3."""

NO_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/local:latest"
"""Placeholder for an image that has not been built."""

INLINE = {"ZipFile": "def handler(event, context):\n    raise RuntimeError('the local stack runs functions itself')\n"}
INTEGRATION = "AWS::ApiGatewayV2::Integration"
UNUSED_TYPES = frozenset(
    {
        "AWS::ApiGatewayV2::Api",
        "AWS::ApiGatewayV2::Authorizer",
        "AWS::ApiGatewayV2::Route",
        "AWS::ApiGatewayV2::Stage",
        "AWS::CloudWatch::Alarm",
        "AWS::Glue::Database",
        "AWS::Glue::Table",
        "AWS::Lambda::LayerVersion",
        "AWS::Lambda::Permission",
        INTEGRATION,
    }
)
"""Resources that the local stack does not need from moto, which would import whole services for them. The HTTP API is
`http.api_gateway`."""

LOCATIONS = ("CodeUri", "ContentUri", "DefinitionUri", "ImageUri")
PLACEHOLDER = re.compile(r"\$\{([^!}][^}]*)\}")

Template = dict[str, Any]


class Blueprint(Struct, frozen=True):
    """What the stack and the functions' processes are made from.

    Attributes:
        digest: of all inputs; equal digests, equal blueprints.
        template: what moto creates.
        parameters: all of the template's parameters, defaults included.
        code: each function's folder by logical id, relative to the template's; of an image, its Dockerfile's folder.
        files: the digests of the files that the template refers to.
        http_function: logical id of the function behind the HTTP API; None without one.
    """

    digest: str
    template: Template
    parameters: dict[str, str]
    code: dict[str, str]
    files: dict[str, str]
    http_function: str | None


def load_blueprint(template: Path, parameters: Mapping[str, str], cache: Path) -> Blueprint:
    """Return the template's blueprint: the cached one if none of its inputs has changed, else a new one.

    Args:
        template: path of `template.yaml`.
        parameters: overrides of the template's defaults.
        cache: the file that holds the blueprint.

    Raises:
        TemplateRefused: naming the mistake in the template.
    """
    try:
        source = template.read_bytes()
    except OSError as error:
        raise TemplateRefused(f"cannot read {template}: {error.strerror}") from None
    digest = _digest_inputs(source, parameters)
    cached = _read_cache(cache)
    if cached is not None and cached.digest == digest and _digest_files(template.parent, cached.files) == cached.files:
        return cached
    blueprint = _build(template, parameters, digest)
    write_cache(cache, msgspec.json.encode(blueprint))
    return blueprint


def translate(template: Path, parameters: Mapping[str, str] | None = None) -> Template:
    """Return the template as CloudFormation would create it: expanded and translated. For linters.

    Raises:
        TemplateRefused: naming the mistake in the template.
    """
    return _translate(_expand(template, parameters or {}))


def write_atomically(path: Path, body: bytes) -> None:
    """Write a file so that a reader sees either the whole old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(body)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_cache(path: Path, body: bytes) -> None:
    """Write a file that only saves time; if it cannot be written, there is none."""
    with suppress(OSError):
        write_atomically(path, body)


def _build(template: Path, parameters: Mapping[str, str], digest: str) -> Blueprint:
    expanded = _expand(template, parameters)
    code = _find_code(expanded.document)
    files = _digest_files(template.parent, expanded.files)
    translated = _translate(expanded)
    return Blueprint(digest, _adapt(translated), expanded.parameters, code, files, _find_http_function(translated))


def _find_http_function(translated: Template) -> str | None:
    """Return the logical id of the function of the first integration of an HTTP API."""
    for body in translated["Resources"].values():
        if body["Type"] == INTEGRATION:
            return str(body["Properties"]["IntegrationUri"]["Fn::GetAtt"][0])
    return None


def _find_code(document: Template) -> dict[str, str]:
    shared = document.get("Globals", {}).get("Function", {}).get("CodeUri")
    code: dict[str, str] = {}
    for name, body in document["Resources"].items():
        if body["Type"] == "AWS::Serverless::Function":
            properties = body.get("Properties", {})
            if properties.get("PackageType") == "Image":
                code[name] = _find_image(name, body)
                continue
            folder = properties.get("CodeUri", shared)
            if not isinstance(folder, str) or folder.startswith("s3://"):
                raise TemplateRefused(f"{name}: CodeUri must name a folder beside the template, not {folder!r}")
            code[name] = folder
    return code


def _find_image(name: str, body: Template) -> str:
    metadata, command = body.get("Metadata", {}), body["Properties"].get("ImageConfig", {}).get("Command")
    if not (command and {"DockerContext", "Dockerfile"} <= set(metadata)):
        raise TemplateRefused(
            f"{name}: an image must name its DockerContext and Dockerfile in Metadata, and its handler in ImageConfig"
        )
    return str((Path(metadata["DockerContext"]) / metadata["Dockerfile"]).parent)


@dataclass(frozen=True, slots=True)
class _Expanded:
    document: Template
    parameters: dict[str, str]
    files: list[str]


def _expand(template: Path, parameters: Mapping[str, str]) -> _Expanded:
    """Read the template, expand its loops, and read the definitions that it names."""
    from samcli.yamlhelper import yaml_parse

    try:
        parsed = yaml_parse(template.read_text())
    except Exception as error:  # noqa: BLE001 (whatever a YAML reader raises)
        raise TemplateRefused(f"{template} is not YAML: {error}") from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("Resources"), dict):
        raise TemplateRefused(f"{template} has no Resources")
    values = _resolve_parameters(parsed.get("Parameters", {}), parameters)
    document: Template = json.loads(json.dumps(_expand_loops(parsed, values)))
    files: list[str] = []
    for name, body in document["Resources"].items():
        properties = body.get("Properties", {})
        if isinstance(properties.get("DefinitionUri"), str):
            files.append(properties.pop("DefinitionUri"))
            properties["Definition"] = _read_definition(template.parent, name, files[-1])
    return _Expanded(document, values, files)


def _expand_loops(parsed: Template, values: Mapping[str, str]) -> Template:
    """Expand every Fn::ForEach and nothing else.

    SAM CLI's whole pipeline also resolves what it can, and then loses the Fn::Sub around what it cannot.
    """
    from samcli.lib.cfn_language_extensions.api import create_default_intrinsic_resolver
    from samcli.lib.cfn_language_extensions.exceptions import InvalidTemplateException
    from samcli.lib.cfn_language_extensions.models import ResolutionMode, TemplateProcessingContext
    from samcli.lib.cfn_language_extensions.pipeline import ProcessingPipeline
    from samcli.lib.cfn_language_extensions.processors import TemplateParsingProcessor
    from samcli.lib.cfn_language_extensions.processors.foreach import ForEachProcessor

    context = TemplateProcessingContext(
        fragment=deepcopy(parsed), parameter_values=dict(values), resolution_mode=ResolutionMode.PARTIAL
    )
    resolver = create_default_intrinsic_resolver(context)
    pipeline = ProcessingPipeline([TemplateParsingProcessor(), ForEachProcessor(intrinsic_resolver=resolver)])
    try:
        loops_expanded = dict(pipeline.process_template(context))
        # Paths of code and definitions may be computed, too: from a loop's variable, for instance.
        for properties in _properties(loops_expanded):
            properties |= {key: resolver.resolve_value(properties[key]) for key in LOCATIONS if key in properties}
    except InvalidTemplateException as error:
        raise TemplateRefused(f"the template's loops cannot be expanded: {error}") from None
    return loops_expanded


def _properties(template: Template) -> Iterator[dict[str, Any]]:
    return (body["Properties"] for body in template["Resources"].values() if "Properties" in body)


def _resolve_parameters(declared: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(set(overrides) - set(declared))
    if unknown:
        raise TemplateRefused(f"the template has no parameter {', '.join(unknown)}; it has {', '.join(declared)}")
    values: dict[str, str] = {}
    for name, body in declared.items():
        if name not in overrides and "Default" not in body:
            raise TemplateRefused(f"parameter {name} has no default and no value was given")
        value = str(overrides.get(name, body.get("Default")))
        items = [item.strip() for item in value.split(",")] if body["Type"] == "CommaDelimitedList" else [value]
        allowed = [str(item) for item in body.get("AllowedValues", [])]
        pattern = body.get("AllowedPattern")
        for item in items:
            if (allowed and item not in allowed) or (pattern and not re.fullmatch(pattern, item)):
                rule = f"one of {', '.join(allowed)}" if allowed else f"text like {pattern}"
                raise TemplateRefused(f'parameter {name} must be {rule}, not "{item}"')
        values[name] = value
    return values


def _read_definition(folder: Path, name: str, path: str) -> Template:
    try:
        return dict(json.loads((folder / path).read_bytes()))
    except OSError as error:
        raise TemplateRefused(f"{name}: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise TemplateRefused(f"{name}: {path} is not JSON: {error}") from None


def _translate(expanded: _Expanded) -> Template:
    """Translate the serverless resources."""
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    document = deepcopy(expanded.document)
    shared = document.get("Globals", {}).get("Function", {})
    if "CodeUri" in shared:
        shared["CodeUri"] = NO_CODE
    for properties in _properties(document):
        properties |= {key: NO_CODE for key in ("CodeUri", "ContentUri") if isinstance(properties.get(key), str)}
        if properties.get("PackageType") == "Image":
            properties["ImageUri"] = NO_IMAGE
    # The translator reads only the region of a boto3 session; without one it reads the caller's profile.
    session: Any = SimpleNamespace(region_name=REGION)
    translator = Translator({}, Parser(), boto_session=session)
    try:
        return dict(translator.translate(document, dict(expanded.parameters)))
    except InvalidDocumentException as error:
        causes = "; ".join(str(cause.message) for cause in error.causes)
        raise TemplateRefused(f"the template cannot be translated: {causes}") from None
    finally:
        translator.metrics.publish()  # sends nothing; unpublished metrics print a warning


def _adapt(translated: Template) -> Template:
    """Adapt to moto.

    - Functions run here, not in moto: moto gets a line of code for them, no layers and no images.
    - Resources of `UNUSED_TYPES` are left out.
    - moto's CloudFormation does not create schedules, so a reference to one is replaced by its name.
    - moto ignores DefinitionSubstitutions, and its Fn::Sub with a mapping turns "$$." into "$.". A definition that is
      joined from pieces avoids both.
    """
    template = deepcopy(translated)
    resources = template["Resources"]
    unused = {name for name, body in resources.items() if body["Type"] in UNUSED_TYPES}
    template["Resources"] = resources = {name: body for name, body in resources.items() if name not in unused}
    outputs = template.get("Outputs", {})
    for name in [name for name, output in outputs.items() if _find_reference(output["Value"]) in unused]:
        del outputs[name]
    schedules = {name for name, body in resources.items() if body["Type"] == "AWS::Scheduler::Schedule"}
    for output in template.get("Outputs", {}).values():
        if isinstance(output["Value"], dict) and output["Value"].get("Ref") in schedules:
            output["Value"] = resources[output["Value"]["Ref"]]["Properties"]["Name"]
    for body in resources.values():
        properties = body.get("Properties", {})
        if body["Type"] == "AWS::Lambda::Function":
            properties["Code"] = INLINE
            properties.pop("Layers", None)
            if properties.pop("PackageType", None) == "Image":
                properties["Handler"] = properties.pop("ImageConfig")["Command"][0]
        elif body["Type"] == "AWS::StepFunctions::StateMachine":
            substitutions = properties.pop("DefinitionSubstitutions", {})
            definition = properties.pop("DefinitionString")
            properties["DefinitionString"] = {"Fn::Join": ["", list(_fill(_flatten(definition), substitutions))]}
    return template


def _find_reference(value: object) -> str | None:
    """Return the resource that a value refers to."""
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
            return name
        case _:
            return None


def _flatten(definition: object) -> str:
    """Return a definition as compact text; the translator joins it from pretty-printed lines."""
    if isinstance(definition, dict) and "Fn::Join" in definition:
        separator, lines = definition["Fn::Join"]
        definition = separator.join(lines)
    return json.dumps(json.loads(str(definition)), separators=(",", ":"))


def _fill(text: str, substitutions: Mapping[str, Any]) -> Iterable[Any]:
    for index, piece in enumerate(PLACEHOLDER.split(text)):
        if index % 2 == 0:
            yield piece
        elif piece in substitutions:
            yield substitutions[piece]
        else:
            raise TemplateRefused(f"a state machine uses ${{{piece}}}, which is missing in its DefinitionSubstitutions")


def _digest_inputs(source: bytes, parameters: Mapping[str, str]) -> str:
    inputs = [
        str(CACHE_VERSION),
        version("aws-sam-cli"),
        version("aws-sam-translator"),
        json.dumps(dict(parameters), sort_keys=True),
        hashlib.sha256(source).hexdigest(),
    ]
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def _digest_files(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    digests: dict[str, str] = {}
    for path in paths:
        try:
            digests[path] = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        except OSError:
            digests[path] = ""
    return digests


def _read_cache(cache: Path) -> Blueprint | None:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=Blueprint)
    except (OSError, msgspec.DecodeError):
        return None
