"""Adds model files as members, or changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from builders import MODELS, ROOT, X, manifest, member, model
from in_process import run_in_process
from stepensemble import Ensemble
from stepensemble.admission.new_member import FIELDS, Addition, Candidate, plan_addition, write_addition, write_file
from stepensemble.conversion import sandbox
from stepensemble.core.errors import AdditionRefused, InputMismatch, InvalidManifest, ModelRefused
from stepensemble.core.preprocessing.encoding import all_column_names
from stepensemble.core.releases.release import digest_of
from stepensemble.core.schema.manifest import Member
from stepensemble.publishing.manifest_loader import read_sources
from stepensemble.runtimes import load_model

Y = {"name": "y", "type": "number"}
BINARY = {"type": "binary", "classes": ["no", "yes"]}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Run models in this process, which is many times as fast; `tests/functional/test_add.py` runs them in a child."""
    monkeypatch.setattr(sandbox, "run_in_child", run_in_process)
    return monkeypatch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the manifest; the candidates' files are in another one."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def shipped(folder: Path) -> Path:
    """A copy of the shipped manifest with its models."""
    shutil.copytree(ROOT / "models", folder, dirs_exist_ok=True)
    return folder / "manifest.json"


def write(folder: Path, data: Any, **layout: Any) -> Path:
    """Write a manifest, and the models that it names."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(data, **{"indent": 2, **layout}))
    for entry in data.get("members", []):
        artifact = folder / entry["artifact"]
        artifact.parent.mkdir(exist_ok=True)
        artifact.write_bytes(model(artifact.stem))
    return path


def plan(path: Path, name: str = "half_plus_two", *, replace: bool = False, **fields: Any) -> Addition:
    file = MODELS / f"{name}.tflite"
    return plan_addition(path, Candidate(file, {"id": "new", **fields}, replace))


def add(path: Path, name: str = "half_plus_two", *, replace: bool = False, **fields: Any) -> Addition:
    planned = plan(path, name, replace=replace, **fields)
    write_addition(planned)
    return planned


def entries(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["members"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def added_lines(before: str, after: str) -> list[str]:
    """Return the added lines; the only removed line is the bracket that a comma follows now."""
    old, new = before.splitlines(), after.splitlines()
    start = next(index for index, (one, other) in enumerate(zip(old, new, strict=False)) if one != other)
    added = new[start : start + len(new) - len(old) + 1]
    assert new[start + len(added) :] == old[start + 1 :]
    return added


def refusal(path: str, work: Callable[[], object]) -> str:
    with pytest.raises(AdditionRefused) as raised:
        work()
    (problem,) = raised.value.problems
    assert problem.path == path
    return f"{problem.message}; {problem.remedy}"


# The entry


def test_every_field_of_a_member_has_a_position() -> None:
    assert sorted(FIELDS) == sorted(field.name for field in structs.fields(Member))
    listed = [list(entry) for entry in entries(ROOT / "models" / "manifest.json")]
    assert all(names == [name for name in FIELDS if name in names] for names in listed)


def test_an_added_member_has_the_format_of_the_others(shipped: Path) -> None:
    before = shipped.read_text()
    file = ROOT / "models" / "titanic" / "wide.tflite"
    planned = plan_addition(shipped, Candidate(file, {"id": "fifth"}))
    assert shipped.read_text() == before
    write_addition(planned)
    assert added_lines(before, shipped.read_text()) == [
        "    },",
        "    {",
        '      "id": "fifth",',
        '      "version": "1",',
        '      "artifact": "titanic/fifth.tflite",',
        '      "runtime": "litert",',
        '      "output": {"kind": "probability"},',
        '      "weight": 1,',
        '      "role": "voter",',
        '      "timeout": 10,',
        f'      "columns": {json.dumps(all_column_names(read_sources(shipped).manifest.features))},',
        f'      "digest": "{digest_of(file.read_bytes())}"',
        "    }",
    ]
    assert (shipped.parent / "titanic" / "fifth.tflite").read_bytes() == file.read_bytes()
    assert read_sources(shipped).digest == planned.release
    assert planned.inferred == {
        "columns": "all, as many as the model takes",
        "output": 'the probability of "survived": one number a row, in [0, 1] on 16 rows',
    }


def test_a_default_is_written_if_other_members_write_it(folder: Path) -> None:
    path = write(folder, manifest(member()))
    add(path)
    assert list(entries(path)[-1]) == ["id", "version", "artifact", "output", "columns", "digest"]
    path = write(folder, manifest(member(), member("other", tier=1)))
    add(path, role="shadow")
    assert {**entries(path)[-1], "digest": ""} == {
        "id": "new",
        "version": "1",
        "artifact": "new.tflite",
        "output": {"kind": "value"},
        "role": "shadow",
        "tier": 1,
        "columns": ["x"],
        "digest": "",
    }


@pytest.mark.parametrize("members", [{"members": []}, {}])
def test_the_first_member_is_stored_in_a_folder_with_the_manifests_name(folder: Path, members: Any) -> None:
    data = {name: value for name, value in manifest().items() if name != "members"} | members
    path = write(folder, data)
    add(path)
    assert entries(path)[0]["artifact"] == "halves/new.tflite"
    assert {**json.loads(path.read_text()), "members": []} == {**data, "members": []}
    assert [one.id for one in read_sources(path).release.members] == ["new"]


def test_declared_fields_are_written_unchanged(folder: Path) -> None:
    other = member("a", "sigmoid", "probability", columns=["x"])
    path = write(folder, manifest(other, task=BINARY, features=[X, Y]))
    fields = {"version": "2026-03", "timeout": 20, "columns": ["y"], "output": {"kind": "logit", "temperature": 2}}
    planned = add(path, **fields)
    assert {name: entries(path)[-1][name] for name in fields} == fields
    assert planned.inferred == {}


def test_inputs_are_bound_by_their_names(folder: Path) -> None:
    port = {"name": "b", "type": "category", "vocabulary": ["C", "S"], "encoding": "one_hot"}
    path = write(folder, manifest(member(columns=["a"]), features=[{"name": "a", "type": "number"}, port]))
    planned = add(path, "named", output={"kind": "value", "name": "total"})
    assert entries(path)[-1]["inputs"] == {"a": ["a"], "b": ["b=C", "b=S"]}
    assert planned.inferred == {"columns": "those with the names of the model's inputs"}
    fields = {"a": ["b=S"], "b": ["a", "b=C"]}
    add(path, "named", id="other", output={"kind": "value", "name": "total"}, inputs=fields)
    assert entries(path)[-1]["inputs"] == fields
    assert refusal("--output", lambda: plan(path, "named", id="third")) == (
        'the model has several outputs: "first", "total"; choose one, such as \'{"kind": "value", "name": "first"}\''
    )


def test_columns_that_do_not_fit_are_rejected_with_the_existing_ones(folder: Path) -> None:
    features = [{"name": name, "type": "number"} for name in "pq"]
    path = write(folder, manifest(member(columns=["p"]), features=features))
    with pytest.raises(InputMismatch, match=r'1 number a row as "x", and there are 2 columns, "p", "q"; .*--columns'):
        plan(path)
    with pytest.raises(InputMismatch, match=r'1 number a row as "x", and "x" gets "p", "q"; .*--columns'):
        plan(path, columns=["p", "q"])


def test_a_model_of_whole_numbers_needs_golden_rows_of_whole_numbers(folder: Path) -> None:
    path = write(folder, manifest(members=[member("half")]))
    with pytest.raises(InputMismatch, match='drawn from the features: give the manifest "golden" rows with whole'):
        plan(path, "long_plus_one")
    assert add(write(folder, manifest(golden=[{"x": 2}, {"x": 6}])), "long_plus_one").member.id == "new"


def test_the_manifests_golden_rows_are_predicted(folder: Path) -> None:
    path = write(folder, manifest(golden=[{"x": 2}, {"x": 6}]))
    (fields,) = plan(path).converted.outputs.values()
    assert fields.tolist() == [[3], [5]]
    binary = manifest(task=BINARY, members=[member("a", "sigmoid", "probability")], golden=[{"x": 0}, {"x": 1}])
    path = write(folder, binary)
    assert "on only 2 golden rows" in refusal("--output", lambda: plan(path, "sigmoid"))


# The artifact


def test_a_file_beside_the_manifest_is_not_copied(folder: Path) -> None:
    path = write(folder, manifest())
    (folder / "sub").mkdir()
    shutil.copy(MODELS / "fixed_batch_one.tflite", folder / "sub" / "mine.tflite")
    planned = plan_addition(path, Candidate(folder / "sub" / "mine.tflite", {"id": "new"}))
    assert (planned.body, planned.member.artifact) == (None, "sub/mine.tflite")
    before = contents(folder)
    write_addition(planned)
    assert contents(folder).keys() == before.keys()


def test_another_file_is_copied_to_the_folder_of_most_members(folder: Path) -> None:
    listed = [member("a"), member("b", "kept/half_plus_two"), member("c", "kept/fixed_batch_one")]
    path = write(folder, manifest(*listed))
    assert plan(path).member.artifact == "kept/new.tflite"


def test_a_file_with_other_content_is_never_overwritten(folder: Path) -> None:
    path = write(folder, manifest())
    (folder / "new.tflite").write_bytes(b"something else")
    assert plan(path).member.artifact == "new-1.tflite"
    assert plan(path, version="2.0/rc 1").member.artifact == "new-2.0-rc-1.tflite"
    (folder / "new-1.tflite").write_bytes(model("half_plus_two"))
    assert (plan(path).member.artifact, plan(path).body) == ("new-1.tflite", None)
    (folder / "new-1.tflite").write_bytes(b"another")
    assert refusal("--version", lambda: plan(path)) == (
        f"{folder / 'new-1.tflite'} exists with other content; give another version, or remove the file"
    )


def test_reordered_features_move_no_column_of_an_added_member(folder: Path) -> None:
    three = {"type": "multiclass", "classes": ["red", "green", "blue"]}
    path = write(folder, {**manifest(task=three, features=[X, Y]), "members": []})
    add(path, "softmax")
    before = Ensemble.load(path).predict({"features": {"x": 1, "y": 2}})["predictions"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "features": [Y, X]}))
    assert read_sources(path).release.members[0].inputs == {"": ("x", "y")}
    assert Ensemble.load(path).predict({"features": {"x": 1, "y": 2}})["predictions"] == before


# In the place of another


def test_a_replacement_with_other_columns_gets_its_own_columns(folder: Path) -> None:
    three = {"type": "multiclass", "classes": ["red", "green", "blue"]}
    entry = member("a", "sign_label", "label", columns=["x"])
    path = write(folder, manifest(entry, task=three, features=[X, Y], aggregation={"method": "hard_vote"}))
    planned = add(path, "softmax", id="a", replace=True, output={"kind": "probabilities"})
    assert (planned.member.columns, planned.inferred["columns"]) == (("x", "y"), "all, as many as the model takes")
    with pytest.raises(InputMismatch, match="and there are 2 columns"):
        plan(path, "cyclic", id="a", replace=True)
    with pytest.raises(InputMismatch, match='"x" gets "x"'):
        plan(path, "softmax", id="a", replace=True, columns=["x"])


def test_a_replaced_member_changes_only_in_the_fields_that_differ(shipped: Path) -> None:
    before = shipped.read_text()
    wide = ROOT / "models" / "titanic" / "wide.tflite"
    planned = plan_addition(shipped, Candidate(wide, {"id": "linear", "timeout": 20}, replace=True))
    write_addition(planned)
    old, new = before.splitlines(), shipped.read_text().splitlines()
    place = next(index for index, line in enumerate(new) if '"columns"' in line)
    changed = [(one, other) for one, other in zip(old, [*new[:place], *new[place + 2 :]], strict=True) if one != other]
    assert changed == [
        ('      "version": "1",', '      "version": "2",'),
        ('      "artifact": "titanic/linear.tflite",', '      "artifact": "titanic/linear-2.tflite",'),
        ('      "timeout": 10', '      "timeout": 20,'),
    ]
    assert new[place + 1] == f'      "digest": "{digest_of(wide.read_bytes())}"'
    assert planned.replaced == "1"
    assert (shipped.parent / "titanic" / "linear.tflite").is_file()


def test_the_same_model_again_changes_nothing(folder: Path) -> None:
    path = write(folder, manifest())
    add(path, "fixed_batch_one", weight=1)
    before = contents(folder)
    assert add(path, "fixed_batch_one", replace=True).replaced == "1"
    assert contents(folder) == before


def test_fields_of_the_replaced_member_stay_unless_declared_again(folder: Path) -> None:
    other = member("other", "sigmoid", "value", columns=["y"], role="shadow", version="2026-03")
    path = write(folder, manifest(member(columns=["x"]), other, features=[X, Y]))
    assert 'there is no number after "2026-03"' in refusal("--version", lambda: plan(path, id="other", replace=True))
    add(path, id="other", replace=True, version="2026-04")
    kept = entries(path)[-1]
    assert (kept["columns"], kept["role"], kept["version"]) == (["y"], "shadow", "2026-04")
    add(path, "two_inputs", id="other", replace=True, version="3", inputs=read_inputs("two_inputs"))
    assert (entries(path)[-1]["columns"], list(entries(path)[-1]["inputs"].values())) == (None, [["x"], ["y"]])
    assert read_sources(path).release.members[-1].inputs == read_inputs("two_inputs", tuple)


def read_inputs(name: str, kind: Callable[[list[str]], Any] = list) -> dict[str, Any]:
    """Bind the two inputs of a model to x and y, under the names that converters gave them."""
    first, second = load_model("litert", model(name)).signature.inputs
    return {first.name: kind(["x"]), second.name: kind(["y"])}


def test_an_id_is_unique_and_replaced_in_place(folder: Path) -> None:
    path = write(folder, manifest())
    assert refusal("--id", lambda: plan(path, id="half")) == (
        '"half" is a member already; give another id, or --replace to replace that model'
    )
    assert refusal("--replace", lambda: plan(path, id="hlaf", replace=True)) == (
        'there is no member "hlaf", did you mean "half"?; leave it out to add one'
    )


# Refused before anything is written


def test_all_invalid_fields_are_reported_before_the_file_is_read(folder: Path) -> None:
    path = write(folder, manifest())
    fields = {"id": "Ä", "timeout": 90, "columns": ["xx"], "output": {"kind": "logit"}, "weight": -1, "role": "boss"}
    with pytest.raises(InvalidManifest) as raised:
        plan_addition(path, Candidate(folder / "nowhere.tflite", fields))
    paths = {problem.path.removeprefix("$.members[1].") for problem in raised.value.problems}
    assert paths == {"id", "timeout", "weight", "role"}
    with pytest.raises(InvalidManifest) as raised:
        plan_addition(
            path,
            Candidate(folder / "nowhere.tflite", {**fields, "id": "a", "timeout": 9, "weight": 1, "role": "voter"}),
        )
    paths = {problem.path.removeprefix("$.members[1].") for problem in raised.value.problems}
    assert paths == {"columns[0]", "output.kind"}


def test_columns_and_inputs_exclude_each_other(folder: Path) -> None:
    with pytest.raises(InvalidManifest, match=r'\$.members\[1\].inputs: is given together with "columns"'):
        plan(write(folder, manifest()), columns=["x"], inputs={"x": ["x"]})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", r"\$: is not JSON"),
        ("[]", r"\$: .* object"),
        ('{"members": {}}', r"\$.members: "),
        ('{"members": [1]}', r"\$.members\[0\]: "),
        ("\udcff", "is not UTF-8"),
        ('{"schema_version": 1, "name": "n", "members": []}', r"\$: .*task"),
    ],
)
def test_an_invalid_manifest_is_rejected(folder: Path, text: str, complaint: str) -> None:
    path = folder / "manifest.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidManifest, match=complaint):
        plan(path)
    assert path.read_bytes() == text.encode(errors="surrogateescape")


def test_a_missing_manifest_is_rejected(folder: Path) -> None:
    assert "No such file" in refusal(str(folder / "none.json"), lambda: plan(folder / "none.json"))


def test_other_problems_of_the_manifest_are_reported_before_the_file_is_read(folder: Path) -> None:
    path = write(folder, manifest(quorum={"min_members": 3}))
    with pytest.raises(InvalidManifest, match=r"\$.quorum.min_members: 3 is more than the 2 voters"):
        plan_addition(path, Candidate(folder / "nowhere.tflite", {"id": "new"}))


def test_a_manifest_that_needs_the_new_member_is_valid(folder: Path) -> None:
    path = write(folder, manifest(quorum={"min_members": 2, "required": ["new"]}))
    add(path)
    assert read_sources(path).manifest.quorum.required == ("new",)


def test_problems_of_other_members_do_not_block_an_addition(folder: Path) -> None:
    features = [
        {"name": name, "type": "number"} for name in "pq"
    ]  # since when no old member takes all columns any more
    path = write(folder, manifest(member("a"), member("b"), features=features))
    first = add(path, id="a", replace=True, columns=["p"])
    assert {problem.path.split(".")[1] for problem in first.report.problems} == {"members[1]"}
    assert add(path, id="b", replace=True, columns=["q"]).report.problems == ()


@pytest.mark.parametrize(
    ("data", "name", "fields", "error", "complaint"),
    [
        (manifest(), "logarithm", {}, Exception, "not finite"),
        (manifest(), "fixed_batch_two", {}, InputMismatch, "exactly 2 rows at once"),
        (manifest(), "one_number", {}, ModelRefused, "every input needs a first dimension"),
        (manifest(), "softmax", {}, InputMismatch, "2 numbers a row"),
        (
            manifest(task=BINARY, members=[member("a", "sigmoid", "probability")]),
            "half_plus_two",
            {"output": {"kind": "probability"}},
            InvalidManifest,
            r"members\[1\].*is outside",
        ),
        (
            manifest(task=BINARY, members=[member("a", "sigmoid", "probability")]),
            "sign_label",
            {"output": {"kind": "label"}},
            InvalidManifest,
            r'members\[1\].output.kind: "label" is not a probability',
        ),
        (
            manifest(task=BINARY, members=[member("a", "sigmoid", "probability")]),
            "half_plus_two",
            {},
            AdditionRefused,
            '--output: the model gives one number a row, from .*; give "logit" if',
        ),
    ],
)
def test_a_model_that_does_not_fit_changes_nothing(
    folder: Path, data: Any, name: str, fields: Any, error: type[Exception], complaint: str
) -> None:
    path = write(folder, data)
    before = contents(folder)
    with pytest.raises(error, match=complaint):
        add(path, name, **fields)
    assert contents(folder) == before


def test_a_file_that_is_not_a_model_changes_nothing(folder: Path, here: pytest.MonkeyPatch) -> None:
    here.undo()  # it might end the process
    path = write(folder, manifest())
    broken = folder.parent / "broken.tflite"
    broken.write_bytes(model("half_plus_two")[:-100])
    before = contents(folder)
    with pytest.raises(ModelRefused):
        plan_addition(path, Candidate(broken, {"id": "new"}))
    assert contents(folder) == before


# Interrupted


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("replace", [False, True])
def test_a_crash_at_any_write_leaves_a_complete_manifest_and_a_retry_succeeds(
    folder: Path, late: bool, replace: bool
) -> None:
    def prepare() -> tuple[Path, Addition]:
        shutil.rmtree(folder)
        folder.mkdir()
        path = write(folder, manifest())
        return path, plan(path, "fixed_batch_one", id="half" if replace else "new", replace=replace)

    for number in range(2):
        path, planned = prepare()
        calls = 0

        def write_or_die(target: Path, body: bytes, number: int = number) -> None:
            nonlocal calls
            calls += 1
            if calls > number and not late:
                raise Killed
            write_file(target, body)
            if calls > number:
                raise Killed

        before = path.read_text()
        with pytest.raises(Killed):
            write_addition(planned, write_or_die)
        assert path.read_text() == (planned.new_text if late and number == 1 else before)
        read_sources(path)
        write_addition(
            plan(
                path, "fixed_batch_one", id="half" if replace else "new", replace=replace or path.read_text() != before
            )
        )
        assert path.read_text() == planned.new_text
        assert read_sources(path).digest == planned.release


def test_a_manifest_changed_concurrently_is_not_overwritten(folder: Path) -> None:
    path = write(folder, manifest())
    planned = plan(path, "fixed_batch_one")
    path.write_text(path.read_text() + "\n")
    before = contents(folder)
    assert (
        refusal(str(path), lambda: write_addition(planned))
        == "was changed while the model was read; add the model again"
    )
    assert contents(folder) == before


def test_a_file_is_written_at_once_and_keeps_its_mode(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_file(link, b"new")
    assert (link.is_symlink(), path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (True, b"new", 0o640)
    write_file(tmp_path / "sub" / "fresh", b"new")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "sub" / "fresh").stat().st_mode) == 0o666 & ~mask
    assert sorted(contents(tmp_path)) == ["file", "link", "sub/fresh"]


def test_a_file_that_cannot_be_written_is_named_and_no_temporary_file_remains(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "cannot be written: Is a directory" in refusal(
        str(tmp_path / "folder"), lambda: write_file(tmp_path / "folder", b"new")
    )
    assert contents(tmp_path) == {}
