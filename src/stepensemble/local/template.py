"""From `template.yaml` to a template that moto can create.

Four stages, each a function: read the YAML; write out what AWS::LanguageExtensions abbreviates (SAM CLI's code);
translate the serverless resources (aws-sam-translator, without a call to AWS); adapt to moto. The result is kept in a
file, because importing the two translators alone takes as long as starting the rest of the stack.
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
FORM = 4
"""Of the kept file; raised whenever this module makes something else of the same template."""

NO_CODE = "s3://local/code.zip"
"""Stands for code on the local disk while the serverless resources are translated, which takes S3 locations only."""

NO_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/local:latest"
"""Stands for an image that is yet to be built."""

INLINE = {"ZipFile": "def handler(event, context):\n    raise RuntimeError('the local stack runs functions itself')\n"}
INTEGRATION = "AWS::ApiGatewayV2::Integration"
UNUSED = frozenset(
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
"""What nothing here asks of moto, which would import whole services for it; `door` does what an HTTP API does."""

LOCATIONS = ("CodeUri", "ContentUri", "DefinitionUri", "ImageUri")
PLACEHOLDER = re.compile(r"\$\{([^!}][^}]*)\}")

Template = dict[str, Any]


class Blueprint(Struct, frozen=True):
    """What the emulator and the functions' processes are made from.

    Attributes:
        digest: names everything that went in; equal digests, equal blueprints.
        template: what moto creates.
        parameters: all of the template's parameters, defaults included.
        code: each function's folder by logical id, relative to the template's; of an image, where its Dockerfile lies.
        files: the digests of the files that the template refers to.
        door: logical id of the function behind the HTTP API; None without one.
    """

    digest: str
    template: Template
    parameters: dict[str, str]
    code: dict[str, str]
    files: dict[str, str]
    door: str | None


def load_blueprint(template: Path, parameters: Mapping[str, str], kept: Path) -> Blueprint:
    """Return the template's blueprint: the kept one where nothing that went into it has changed, else a new one.

    Args:
        template: path of `template.yaml`.
        parameters: overrides of the template's defaults.
        kept: the file to keep the blueprint in.

    Raises:
        TemplateRefused: naming what is wrong with the template.
    """
    try:
        source = template.read_bytes()
    except OSError as error:
        raise TemplateRefused(f"cannot read {template}: {error.strerror}") from None
    digest = _digest_inputs(source, parameters)
    found = _read_kept(kept)
    if found is not None and found.digest == digest and _digest_files(template.parent, found.files) == found.files:
        return found
    blueprint = _build(template, parameters, digest)
    write_cache(kept, msgspec.json.encode(blueprint))
    return blueprint


def translate(template: Path, parameters: Mapping[str, str] | None = None) -> Template:
    """Return the template as CloudFormation would create it: expanded and translated. For linters.

    Raises:
        TemplateRefused: naming what is wrong with the template.
    """
    return _translate(_expand(template, parameters or {}))


def write_atomically(path: Path, body: bytes) -> None:
    """Write a file so that a reader sees the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(body)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_cache(path: Path, body: bytes) -> None:
    """Write a file that only saves time; where the disk takes none, there is none."""
    with suppress(OSError):
        write_atomically(path, body)


def _build(template: Path, parameters: Mapping[str, str], digest: str) -> Blueprint:
    expanded = _expand(template, parameters)
    code = _find_code(expanded.document)
    files = _digest_files(template.parent, expanded.files)
    translated = _translate(expanded)
    return Blueprint(digest, _adapt(translated), expanded.parameters, code, files, _find_door(translated))


def _find_door(translated: Template) -> str | None:
    """Return the function of the first integration of an HTTP API."""
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
    """Read the template, write out its loops and put definitions and placeholders where local files are named."""
    from samcli.yamlhelper import yaml_parse

    try:
        parsed = yaml_parse(template.read_text())
    except Exception as error:  # noqa: BLE001 (whatever a YAML reader raises)
        raise TemplateRefused(f"{template} is not YAML: {error}") from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("Resources"), dict):
        raise TemplateRefused(f"{template} has no Resources")
    values = _resolve_parameters(parsed.get("Parameters", {}), parameters)
    document: Template = json.loads(json.dumps(_write_out_loops(parsed, values)))
    files: list[str] = []
    for name, body in document["Resources"].items():
        properties = body.get("Properties", {})
        if isinstance(properties.get("DefinitionUri"), str):
            files.append(properties.pop("DefinitionUri"))
            properties["Definition"] = _read_definition(template.parent, name, files[-1])
    return _Expanded(document, values, files)


def _write_out_loops(parsed: Template, values: Mapping[str, str]) -> Template:
    """Write out every Fn::ForEach and nothing else.

    SAM CLI's own pipeline goes on to resolve what it can, and then loses the Fn::Sub around what it cannot.
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
        written = dict(pipeline.process_template(context))
        # Where code and definitions lie may be computed, too: from a loop's variable, for instance.
        for properties in _properties(written):
            properties |= {key: resolver.resolve_value(properties[key]) for key in LOCATIONS if key in properties}
    except InvalidTemplateException as error:
        raise TemplateRefused(f"the template's loops cannot be written out: {error}") from None
    return written


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
    # It reads nothing but the region of what it takes for boto3's; without that, it looks into the caller's profile.
    where: Any = SimpleNamespace(region_name=REGION)
    translator = Translator({}, Parser(), boto_session=where)
    try:
        return dict(translator.translate(document, dict(expanded.parameters)))
    except InvalidDocumentException as error:
        causes = "; ".join(str(cause.message) for cause in error.causes)
        raise TemplateRefused(f"the template cannot be translated: {causes}") from None
    finally:
        translator.metrics.publish()  # goes nowhere; unpublished, they complain on the terminal


def _adapt(translated: Template) -> Template:
    """Adapt to moto.

    - Functions run here, not in moto: it gets a line of code for them, no layers and no images.
    - What has no use on one's own machine is left out.
    - moto does not create schedules, so it cannot say what one is called, either.
    - moto ignores DefinitionSubstitutions; and its Fn::Sub with a mapping turns "$$." into "$.". Joined pieces are safe
      from both.
    """
    template = deepcopy(translated)
    resources = template["Resources"]
    unused = {name for name, body in resources.items() if body["Type"] in UNUSED}
    template["Resources"] = resources = {name: body for name, body in resources.items() if name not in unused}
    outputs = template.get("Outputs", {})
    for name in [name for name, output in outputs.items() if _refers(output["Value"]) in unused]:
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


def _refers(value: object) -> str | None:
    """Return the resource whose name or attribute a value is."""
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
            raise TemplateRefused(f"a state machine uses ${{{piece}}}, which its DefinitionSubstitutions lack")


def _digest_inputs(source: bytes, parameters: Mapping[str, str]) -> str:
    inputs = [
        str(FORM),
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


def _read_kept(kept: Path) -> Blueprint | None:
    try:
        return msgspec.json.decode(kept.read_bytes(), type=Blueprint)
    except (OSError, msgspec.DecodeError):
        return None
