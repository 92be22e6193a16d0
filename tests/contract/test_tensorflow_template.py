"""template-tensorflow.yaml and its image fit the base stack, the handler and what a publish expects."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cfnlint import lint
from cfnlint.config import ManualArgs
from docker.utils.build import exclude_paths
from samcli.yamlhelper import yaml_parse

from cloudformation import ARNS, GRANTED_ON_EVERYTHING, list_grants, properties_of, resolve
from stepensemble.core.releases.release import name_add_on
from stepensemble.core.schema.manifest import Member
from stepensemble.core.slot_capacity import CAPACITIES, MEBIBYTE
from stepensemble.local.errors import TemplateRefused
from stepensemble.local.template import translate

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template-tensorflow.yaml"
DOCKERFILE = ROOT / "functions" / "score" / "Dockerfile"
BASE = "stack"


@cache
def base() -> dict[str, Any]:
    """Return the base stack."""
    return resolve(translate(ROOT / "template.yaml"), {"AWS::StackName": BASE})


@cache
def add_on(**given: str) -> dict[str, Any]:
    """Return the add-on of the base stack."""
    exports = [output for output in base()["Outputs"].values() if "Export" in output]
    values = {"AWS::StackName": name_add_on(BASE), "BaseStackName": BASE, **given}
    imported = {output["Export"]["Name"]: output["Value"] for output in exports}
    return resolve(translate(TEMPLATE, {"BaseStackName": BASE, **given}), values | imported)


def slots(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a template's score functions by the names of their slots."""
    functions = properties_of("AWS::Lambda::Function", template)
    return {name.removeprefix("Score"): body for name, body in functions.items() if name.startswith("Score")}


def grants(role: str, template: dict[str, Any]) -> set[tuple[str, str]]:
    return set(list_grants(role, template))


# ------------------------------------------------------------------------------------------------ the base stack


def test_the_outputs_list_the_slots() -> None:
    assert list(slots(add_on())) == ["t1", "t2"]
    assert add_on()["Outputs"]["SlotNames"]["Value"] == "t1,t2"
    three = add_on(Slots="t1,t2,t3")
    assert list(slots(three)) == three["Outputs"]["SlotNames"]["Value"].split(",") == ["t1", "t2", "t3"]


def test_no_slot_has_the_name_of_a_base_stacks_slot() -> None:
    for template in (base(), add_on()):
        assert {body["FunctionName"] for body in slots(template).values()} == {
            f"{base()['Outputs']['ScoreFunctionPrefix']['Value']}{slot}" for slot in slots(template)
        }
    assert not slots(base()).keys() & slots(add_on()).keys()
    with pytest.raises(TemplateRefused, match="Slots"):
        translate(TEMPLATE, {"BaseStackName": BASE, "Slots": "t1,2"})


def test_a_slot_has_the_buckets_and_settings_of_the_base_stacks_slots() -> None:
    one, other = slots(base())["1"], slots(add_on())["t1"]
    buckets = {name: body["BucketName"] for name, body in properties_of("AWS::S3::Bucket", base()).items()}
    variables = one["Environment"]["Variables"]
    assert other["Environment"]["Variables"] == {name: buckets.get(value, value) for name, value in variables.items()}
    for setting in ("Architectures", "Timeout", "TracingConfig"):
        assert other[setting] == one[setting]
    for setting in ("LogFormat", "ApplicationLogLevel"):
        assert other["LoggingConfig"][setting] == one["LoggingConfig"][setting]


@pytest.mark.parametrize(("stage", "level"), [("dev", "DEBUG"), ("prod", "INFO")])
def test_the_stage_sets_the_log_level(stage: str, level: str) -> None:
    for slot in slots(add_on(Stage=stage)).values():
        variables = slot["Environment"]["Variables"]
        assert (variables["STAGE"], variables["LOG_LEVEL"]) == (stage, level)
        assert slot["LoggingConfig"]["ApplicationLogLevel"] == level


def test_the_add_on_allows_the_state_machines_to_invoke_its_slots_and_nothing_else() -> None:
    arn = ARNS["AWS::Lambda::Function"]
    for role in ("EnsembleRole", "BatchRole"):
        assert grants(role, add_on()) == {
            ("lambda:InvokeFunction", arn.format(**function)) for function in slots(add_on()).values()
        }


def test_a_slots_timeout_is_longer_than_any_members() -> None:
    longest = msgspec.json.schema(Member)["$defs"]["Member"]["properties"]["timeout"]["maximum"]
    assert {slot["Timeout"] > longest for slot in slots(add_on()).values()} == {True}


def test_a_slot_has_the_memory_and_disk_that_the_gate_expects() -> None:
    expected, parameter = CAPACITIES["tensorflow"], yaml_parse(TEMPLATE.read_text())["Parameters"]["MemorySize"]
    assert parameter["MaxValue"] * MEBIBYTE == expected.most
    for slot in slots(add_on()).values():
        assert int(slot["MemorySize"]) * MEBIBYTE == expected.memory
        assert int(slot["EphemeralStorage"]["Size"]) * MEBIBYTE == expected.disk


# ---------------------------------------------------------------------------------------------------- the rights


def test_its_role_has_the_rights_of_the_base_stacks_slots_and_a_log_group_of_its_own() -> None:
    ((group, properties),) = properties_of("AWS::Logs::LogGroup", add_on()).items()
    own = ARNS["AWS::Logs::LogGroup"].format(**properties)
    granted = grants("ScoreRole", add_on())
    assert {grant for grant in granted if grant[0].startswith("logs:")} == {
        ("logs:CreateLogStream", own),
        ("logs:PutLogEvents", own),
    }
    assert {grant for grant in granted if not grant[0].startswith("logs:")} == {
        grant for grant in grants("ScoreRole", base()) if not grant[0].startswith("logs:")
    }
    assert {slot["LoggingConfig"]["LogGroup"] for slot in slots(add_on()).values()} == {group}
    assert {slot["Role"] for slot in slots(add_on()).values()} == {"ScoreRole"}
    assert properties["RetentionInDays"] == "14"


def test_there_is_no_other_role_and_no_managed_policy() -> None:
    (role,) = properties_of("AWS::IAM::Role", add_on()).values()
    assert "ManagedPolicyArns" not in role
    assert {action for action, resource in grants("ScoreRole", add_on()) if resource == "*"} <= GRANTED_ON_EVERYTHING


# ----------------------------------------------------------------------------------------------------- the image


def steps(dockerfile: Path = DOCKERFILE) -> Iterator[tuple[str, str]]:
    """Return a Dockerfile's instructions with their arguments, in order."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for step in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        instruction, _, arguments = step.partition(" ")
        yield instruction, arguments.strip()


def copied() -> list[str]:
    """Return the paths that the image copies from the project."""
    copies = [shlex.split(arguments) for instruction, arguments in steps() if instruction in {"COPY", "ADD"}]
    return [source for copy in copies if not copy[0].startswith("--from=") for source in copy[:-1]]


def test_every_slot_runs_the_same_image() -> None:
    (_, _, loop) = yaml_parse(TEMPLATE.read_text())["Resources"]["Fn::ForEach::ScoreFunctions"]
    slot = loop["Score${Slot}"]
    assert (ROOT / slot["Metadata"]["DockerContext"] / slot["Metadata"]["Dockerfile"]).resolve() == DOCKERFILE
    chosen, (name, _) = slot["Properties"]["ImageUri"]["Fn::Select"]
    assert (chosen, name) == (0, "stepensemble-score")
    assert {body["PackageType"] for body in slots(add_on()).values()} == {"Image"}


def test_the_image_runs_the_handler_in_its_dockerfiles_folder() -> None:
    (command,) = [json.loads(arguments) for instruction, arguments in steps() if instruction == "CMD"]
    assert {tuple(slot["ImageConfig"]["Command"]) for slot in slots(add_on()).values()} == {tuple(command)}
    module, function = command[0].split(".")
    handlers = (DOCKERFILE.parent / f"{module}.py").read_text()
    assert f"def {function}(" in handlers
    assert "functions/score/app.py" in copied()


def test_the_image_has_the_functions_python_version_and_is_pinned() -> None:
    (first, *rest) = [arguments.split() for instruction, arguments in steps() if instruction == "FROM"]
    runtime = yaml_parse((ROOT / "template.yaml").read_text())["Globals"]["Function"]["Runtime"]
    version = re.escape(runtime.removeprefix("python"))
    assert re.fullmatch(rf"public\.ecr\.aws/lambda/python:{version}\.[\d.]+@sha256:[0-9a-f]{{64}}", first[0])
    assert {stage[0] for stage in rest} == {first[-1]}  # the other stages start from it


def test_the_docker_ignore_file_admits_the_copied_files_and_no_others() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    let_through = {
        Path(path)
        for path in exclude_paths(str(ROOT), patterns, "functions/score/Dockerfile")
        if (ROOT / path).is_file()
    }
    for source in copied():
        assert any(path.is_relative_to(source) for path in let_through), source
    sources = [*copied(), ".dockerignore", "functions/score/Dockerfile"]
    assert [path for path in let_through if not any(path.is_relative_to(source) for source in sources)] == []
    package = ROOT / "src" / "stepensemble"
    taken = {path.relative_to("src/stepensemble").parts[0] for path in let_through if path.is_relative_to("src")}
    left_out = {path.name for path in package.iterdir()} - taken - {"__pycache__"}
    assert left_out == {"admission", "cli", "conversion", "local", "publishing"}


def test_the_image_is_built_by_the_projects_uv_from_its_lock_file() -> None:
    commands = [arguments for instruction, arguments in steps() if instruction == "RUN"]
    (version,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"uv=={version}" in commands[0].split()
    for flag in ("--require-hashes", "--no-deps", "--only-binary :all:"):
        assert flag in commands[2]


def test_the_image_has_the_tensorflow_version_that_converts_and_checks_models() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (tried,), (served,) = (
        project["project"]["optional-dependencies"]["tensorflow"],
        project["dependency-groups"]["image"],
    )
    assert served.split(";")[0].replace("-cpu", "") == tried


# -------------------------------------------------------------------------------------------------- the operator


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_samconfig_deploys_it_for_each_stage_under_the_name_that_a_publish_expects(stage: str) -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())
    stack = settings[stage]["global"]["parameters"]["stack_name"]
    common = settings[f"{stage}-tensorflow"]["global"]["parameters"]
    assert common == {"language_extensions": True, "stack_name": name_add_on(stack)}
    deploy, beside = (settings[name]["deploy"]["parameters"] for name in (f"{stage}-tensorflow", stage))
    assert deploy["parameter_overrides"] == [f"BaseStackName={stack}", *beside["parameter_overrides"]]
    assert {key for key in beside if deploy[key] != beside[key]} == {"s3_prefix", "parameter_overrides"}


@pytest.mark.slow
def test_sam_validates_the_template() -> None:
    command = [str(Path(sys.executable).with_name("sam")), "validate", "--lint", "--template-file", str(TEMPLATE)]
    quietly = os.environ | {"SAM_CLI_TELEMETRY": "0"}
    checked = subprocess.run(command, cwd=ROOT, env=quietly, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("given", [{}, {"Stage": "prod", "Slots": "t1,t2,t3,t4", "MemorySize": "10240"}])
@pytest.mark.slow
def test_the_translated_template_passes_the_linter(given: dict[str, str]) -> None:
    document = translate(TEMPLATE, {"BaseStackName": BASE, **given})
    assert lint(json.dumps(document), config=ManualArgs()) == []
