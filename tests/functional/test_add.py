"""`ensemble add`, as a person uses it; files that TensorFlow converts are in `formats/test_add.py`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from builders import MODELS
from driving import copy_project, run_ensemble
from stepensemble import Ensemble
from stepensemble.core.releases.release import SHORT, digest_of


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project, and beside it a model file."""
    folder = copy_project(tmp_path)
    shutil.copy(folder / "models" / "titanic" / "wide.tflite", folder / "trained.tflite")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (folder / "models").rglob("*") if path.is_file()}


def run_json(folder: Path, *arguments: str, code: int = 0) -> Any:
    """Run a command with --json and return its document."""
    done = run_ensemble(folder, *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def read_error(folder: Path, *arguments: str, code: int = 1) -> str:
    """Run `ensemble add`, which fails and changes no file, and return its error."""
    before = contents(folder)
    done = run_ensemble(folder, "add", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert contents(folder) == before
    return " ".join(done.stderr.replace("│", " ").split())


def test_a_model_is_added_checked_and_invoked(project: Path) -> None:
    done = run_ensemble(project, "add", "trained.tflite", "--id", "fifth")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    release = run_json(project, "check")["release"]
    assert lines == [
        "member    fifth, version 1",
        "model     a LiteRT file, used as it is",
        "artifact  titanic/fifth.tflite, 5,052 bytes",
        "columns   all, as many as the model takes",
        'output    the probability of "survived": one number a row, in [0, 1] on 16 rows',
        f"added  models/manifest.json compiles to release {release[:SHORT]}",
    ]
    output = run_json(project, "run", "events/passenger.json")
    outputs = {member["id"]: member["outputs"] for member in output["members"]}
    assert outputs["fifth"] == outputs["wide"]


def test_json_reports_the_new_member(project: Path) -> None:
    added = run_json(project, "add", "trained.tflite", "--id", "fifth", "--version", "2026-03", "--timeout", "20")
    trained = (project / "trained.tflite").read_bytes()
    assert added.pop("release") == run_json(project, "check")["release"]
    assert added.pop("output")["kind"] == "probability"
    assert added.pop("inferred").keys() == {"columns", "output"}
    assert added == {
        "ok": True,
        "id": "fifth",
        "version": "2026-03",
        "replaced": None,
        "artifact": "titanic/fifth.tflite",
        "digest": digest_of(trained),
        "size": len(trained),
        "source": "litert",
        "runtime": "litert",
        "reason": None,
        "signature": "serving_default",
        "parity": None,
        "columns": list(Ensemble.load(project / "models" / "manifest.json").release.members[-1].inputs[""]),
        "inputs": None,
        "trusted": False,
        "problems": [],
        "warnings": [],
    }
    again = run_json(project, "add", "trained.tflite", "--id", "fifth", code=1)
    assert (again["ok"], [problem["path"] for problem in again["problems"]]) == (False, ["--id"])


def test_a_member_is_replaced_by_a_file_that_takes_other_columns(project: Path) -> None:
    names = "Pclass=1,Pclass=2,Pclass=3,Sex,Age,SibSp,Parch"
    replace = ("models/titanic/deep.tflite", "--id", "wide", "--replace")
    error = read_error(project, *replace)
    assert 'InputMismatch the model takes 7 numbers a row as "columns", and there are 11 columns' in error
    assert error.endswith("list those it takes, in its order: --columns NAME,NAME,…")
    done = run_ensemble(project, "add", *replace, "--columns", names)
    assert "wide, version 2, replaces version 1" in done.stdout
    assert "artifact  titanic/deep.tflite, 4,488 bytes, exists already" in done.stdout
    assert f"columns   {names.replace(',', ', ')}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("replaced  models/manifest.json compiles to release ")
    (wide,) = [
        one for one in json.loads((project / "models/manifest.json").read_text())["members"] if one["id"] == "wide"
    ]
    assert (wide["version"], wide["artifact"], wide["columns"]) == ("2", "titanic/deep.tflite", names.split(","))
    event = json.loads((project / "events" / "passenger.json").read_text())
    assert Ensemble.load(project / "models" / "manifest.json").predict(event)["status"] == "COMPLETE"


def test_another_manifest_without_members_gets_its_first(project: Path) -> None:
    path = project / "models" / "manifest.json"
    data = json.loads(path.read_text()) | {"members": [], "name": "other", "quorum": {}}
    path.rename(path.with_name("shipped.json"))
    other = project / "other.json"
    other.write_text(json.dumps(data, indent=4))
    added = run_json(project, "add", "trained.tflite", "--id", "first", "--manifest", "other.json", "--weight", "1.0")
    assert added["artifact"] == "trained.tflite"  # it is stored beside that manifest
    assert run_json(project, "check", "other.json")["release"] == added["release"]
    assert '"weight"' not in other.read_text()


def test_shadows_and_outputs_are_added_as_given(project: Path) -> None:
    logit = '{"kind": "logit", "temperature": 2}'
    run_json(project, "add", "trained.tflite", "--id", "a", "--role", "shadow", "--output", logit)
    run_json(project, "add", "trained.tflite", "--id", "b", "--output", "logit")
    shadow, voter = json.loads((project / "models" / "manifest.json").read_text())["members"][-2:]
    assert (shadow["role"], shadow["output"]) == ("shadow", {"kind": "logit", "temperature": 2})
    assert (voter["role"], voter["output"]) == ("voter", {"kind": "logit"})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("trained.tflite",), "Missing option '--id'"),
        (("nowhere.tflite", "--id", "a"), "nowhere.tflite does not exist"),
        (("trained.tflite", "--id", "a", "--manifest", "nowhere.json"), "nowhere.json does not exist"),
        (("trained.tflite", "--id", "a", "--architecture", "nowhere.json"), "nowhere.json does not exist"),
        (("trained.tflite", "--id", "a", "--output", '{"kind"'), "is not JSON"),
        (("trained.tflite", "--id", "a", "--input", "x"), "x is not INPUT=NAME"),
        (("trained.tflite", "--id", "a", "--input", "x=Sex", "--input", "x=Age"), "x is given twice"),
        (("trained.tflite", "--id", "a", "--weight", "nan"), "nan is not a finite number"),
        (("trained.tflite", "--id", "a", "--role", "boss"), "'boss' is not one of"),
    ],
)
def test_wrong_usage_exits_2_and_gives_the_reason(project: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in read_error(project, *arguments, code=2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--id", "wide"), '--id: "wide" is a member already; give another id, or --replace to replace that model'),
        (("--id", "wid", "--replace"), '--replace: there is no member "wid", did you mean "wide"?'),
        (("--id", "a", "--weight", "2"), "$.members[4].weight: 2.0 has no effect under the method"),
        (("--id", "a", "--columns", "Sex,Agee"), '"Agee" is not a column; use one of'),
        (("--id", "a", "--columns", "Sex,Age"), '"columns" gets "Sex", "Age"; list those it takes, in its order'),
        (
            ("--id", "a", "--input", "c=Sex"),
            'the model has no input "c": the model takes 11 numbers a row as "columns"',
        ),
        (("--id", "a", "--output", "chance"), '$.members[4].output.kind: "chance"'),
        (("--id", "a", "--output", "logits"), 'the output has 1 numbers a row, and "logits" means 2'),
        (("--id", "a", "--signature", "other"), 'no signature "other"'),
    ],
)
def test_an_option_that_does_not_fit_is_rejected_with_a_remedy(
    project: Path, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in read_error(project, "trained.tflite", *arguments)


def test_a_file_that_would_end_the_process_is_an_error(project: Path) -> None:
    whole = (MODELS / "softmax.tflite").read_bytes()
    (project / "broken.tflite").write_bytes(whole[:733] + bytes([whole[733] ^ 2]) + whole[734:])
    assert "ModelRefused" in read_error(project, "broken.tflite", "--id", "a")


def test_pickles_and_zips_with_paths_outside_are_rejected(project: Path) -> None:
    (project / "model.pkl").write_bytes(b"\x80\x04N.")
    assert "FileUnsafe" in read_error(project, "model.pkl", "--id", "a", "--trust")
    with zipfile.ZipFile(project / "slip.zip", "w") as archive:
        archive.writestr("../saved_model.pb", b"")
    assert "FileUnsafe" in read_error(project, "slip.zip", "--id", "a", "--trust")
    assert not (project.parent / "saved_model.pb").exists()


def test_without_tensorflow_the_error_names_what_to_install(project: Path) -> None:
    with zipfile.ZipFile(project / "dense.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps({"module": "keras.layers", "class_name": "Dense", "config": {}}))
    code = (
        "import sys; sys.modules['tensorflow'] = None; from stepensemble.cli.app import main; "
        "sys.argv[1:] = ['add', 'dense.keras', '--id', 'a']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TensorFlowMissing dense.keras has to be converted" in done.stderr
    assert "pip install 'stepensemble[tensorflow]'" in done.stderr


def test_an_artifact_that_is_overwritten_later_is_noticed(project: Path) -> None:
    run_json(project, "add", "trained.tflite", "--id", "fifth")
    shutil.copy(project / "models" / "titanic" / "linear.tflite", project / "models" / "titanic" / "fifth.tflite")
    done = run_ensemble(project, "check")
    assert done.returncode == 1
    assert "$.members[4].digest:" in done.stderr
    assert "restore the file, or pin the new digest" in done.stderr
