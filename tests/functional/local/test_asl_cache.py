"""A cached definition equals the parsed one, and the cache can always be removed."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

DEFINITION = json.dumps({"StartAt": "Only", "States": {"Only": {"Type": "Succeed"}}})

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture(scope="module", autouse=True)
def _moto():
    from stepensemble.local.emulation.server import load_moto

    load_moto([])


def parse(folder: Path, definition: str = DEFINITION) -> Any:
    from stepensemble.local.moto_patches.speedups.asl_cache import DefinitionCache

    return DefinitionCache(folder).parse(definition)


def test_a_parsed_definition_is_cached(tmp_path: Path):
    program = parse(tmp_path)

    (kept,) = tmp_path.iterdir()
    assert type(pickle.loads(kept.read_bytes())) is type(program)  # noqa: S301 (just written)


def test_a_cached_definition_is_not_parsed_again(tmp_path: Path):
    parse(tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(pickle.dumps("kept"))

    assert parse(tmp_path) == "kept"
    assert parse(tmp_path, DEFINITION.replace("Only", "Other")) != "kept"


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle", b"cno_such_module\nname\n."])
def test_a_damaged_file_is_written_again(tmp_path: Path, content: bytes):
    program = parse(tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(content)

    assert type(parse(tmp_path)) is type(program)
    assert pickle.loads(kept.read_bytes())  # noqa: S301 (just written)


def test_executions_that_start_at_the_same_time_share_one_program(tmp_path: Path):
    from stepensemble.local.moto_patches.speedups.asl_cache import DefinitionCache

    programs = DefinitionCache(tmp_path)
    with ThreadPoolExecutor(8) as starting:
        parsed = list(starting.map(programs.parse, [DEFINITION] * 8))

    assert len({id(program) for program in parsed}) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_program_that_cannot_be_cached_is_parsed(tmp_path: Path):
    folder = tmp_path / "programs"
    folder.write_text("a file")

    assert parse(folder) is not None


def test_an_invalid_definition_is_rejected_and_not_cached(tmp_path: Path):
    from moto.stepfunctions.parser.asl.parse.asl_parser import ASLParserException

    with pytest.raises(ASLParserException):
        parse(tmp_path, "{}")

    assert not list(tmp_path.iterdir())


@given(value=JSON)
def test_a_copied_state_is_equal_and_shares_nothing(value: Any):
    from stepensemble.local.moto_patches.speedups.engine import copy_json

    listed, named = copy_json([value]), copy_json({"state": value})

    assert (listed, named) == ([value], {"state": value})
    assert json.dumps([listed, named]) == json.dumps([[value], {"state": value}])  # types too: 1, 1.0 and true differ
    if isinstance(value, list | dict):
        assert listed[0] is not value
        assert named["state"] is not value


def test_responses_of_boto_are_copied():
    from stepensemble.local.moto_patches.speedups.engine import copy_json

    response = {"Body": b"bytes", "At": datetime(2026, 3, 1, tzinfo=UTC), "Sizes": [1, 2.0]}

    assert copy_json(response) == response


def test_values_that_are_not_json_are_copied():
    from stepensemble.local.moto_patches.speedups.engine import copy_json

    state = {"inner": [Path("somewhere"), {1, 2}]}

    assert copy_json(state) == state
