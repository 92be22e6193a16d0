"""From the template to what moto creates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stepensemble.local.errors import TemplateRefused
from stepensemble.local.template import load_blueprint, translate


def load(project: Path, **parameters: str):
    return load_blueprint(project / "template.yaml", parameters, project / "kept.json")


def test_loops_over_a_parameter_are_expanded(project: Path):
    blueprint = load(project, Names="X,Y,Z")

    assert [name for name in blueprint.code if name.startswith("Worker")] == ["WorkerX", "WorkerY", "WorkerZ"]
    assert blueprint.code["WorkerX"] == "functions/commands"
    assert blueprint.code["Broken"] == "functions/broken"
    assert blueprint.template["Resources"]["WorkerX"]["Properties"]["FunctionName"] == {
        "Fn::Sub": "${AWS::StackName}-worker-X"
    }


def test_definitions_keep_their_paths_and_get_their_substitutions(project: Path):
    properties = load(project).template["Resources"]["Machine"]["Properties"]

    assert "DefinitionSubstitutions" not in properties
    pieces = properties["DefinitionString"]["Fn::Join"][1]
    assert pieces[1] == {"Fn::GetAtt": ["Echo", "Arn"]}
    assert "$$.Execution.Name" in "".join(piece for piece in pieces if isinstance(piece, str))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"Greeting": "bye"}, 'Greeting must be one of hello, welcome, not "bye"'),
        ({"Names": "A,b"}, 'Names must be text like [A-Z], not "b"'),
        ({"Slots": "1"}, "no parameter Slots; it has Greeting, Names"),
    ],
)
def test_wrong_parameters_are_rejected(project: Path, parameters: dict[str, str], message: str):
    with pytest.raises(TemplateRefused, match=message.replace("[", r"\[")):
        load(project, **parameters)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("machine.asl.json", "nowhere.json", "cannot read nowhere.json"),
        ("EchoArn:", "OtherArn:", "DefinitionSubstitutions"),
        ("Runtime: python3.13", "Runtime: [", "is not YAML"),
        ("Handler: app.handler", "Handler: app.handler\n    Nonsense: 1", "Nonsense"),
        ("CodeUri: functions/broken", "CodeUri: s3://bucket/key", "Broken: CodeUri must name a folder"),
    ],
)
def test_a_mistake_in_a_template_is_named(project: Path, old: str, new: str, message: str):
    template = project / "template.yaml"
    template.write_text(template.read_text().replace(old, new))

    with pytest.raises(TemplateRefused, match=message):
        load(project)


def test_without_template_the_path_is_named(tmp_path: Path):
    with pytest.raises(TemplateRefused, match=r"template\.yaml"):
        load(tmp_path)


def test_a_cached_blueprint_is_used_without_the_translators(project: Path):
    load(project)
    script = (
        "import sys; from pathlib import Path; from stepensemble.local.template import load_blueprint;"
        f"load_blueprint(Path({str(project / 'template.yaml')!r}), {{}}, Path({str(project / 'kept.json')!r}));"
        "print([name for name in ('samcli', 'samtranslator', 'boto3', 'yaml') if name in sys.modules])"
    )

    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert printed.stdout.strip() == "[]"
    assert printed.stderr == ""


def test_a_blueprint_is_made_again_when_an_input_changes(project: Path):
    before = load(project)
    assert load(project) == before
    assert load(project, Greeting="welcome") != before

    machine = project / "machine.asl.json"
    machine.write_text(machine.read_text().replace("Echoes", "Repeats"))
    assert "Repeats" in json.dumps(load(project).template)


def test_a_damaged_cached_blueprint_is_made_again(project: Path):
    before = load(project)
    (project / "kept.json").write_text('{"digest":')

    assert load(project) == before


IMAGE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Boxed:
    Type: AWS::Serverless::Function
    Metadata:
      DockerContext: .
      Dockerfile: functions/commands/Dockerfile
    Properties:
      PackageType: Image
      ImageConfig:
        Command: [app.handler]
"""


def test_a_function_that_is_an_image_runs_from_beside_its_dockerfile(project: Path):
    (project / "template.yaml").write_text(IMAGE)
    blueprint = load(project)

    assert blueprint.code == {"Boxed": "functions/commands"}
    properties = blueprint.template["Resources"]["Boxed"]["Properties"]
    assert properties["Handler"] == "app.handler"
    assert not {"PackageType", "ImageConfig"} & set(properties)


@pytest.mark.parametrize(
    "line", ["DockerContext: .", "Dockerfile: functions/commands/Dockerfile", "Command: [app.handler]"]
)
def test_an_image_that_does_not_name_its_code_is_rejected(project: Path, line: str):
    (project / "template.yaml").write_text(IMAGE.replace(line, "Other: [thing]"))

    with pytest.raises(TemplateRefused, match="Boxed: an image must name its DockerContext and Dockerfile"):
        load(project)


def test_linters_get_the_translated_template(project: Path):
    translated = translate(project / "template.yaml")

    assert translated["Resources"]["WorkerA"]["Type"] == "AWS::Lambda::Function"
    assert translated["Resources"]["Machine"]["Properties"]["DefinitionSubstitutions"]
    assert "Transform" not in translated
