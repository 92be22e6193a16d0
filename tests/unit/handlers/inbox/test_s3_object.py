from __future__ import annotations

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from stepensemble.handlers.inbox.s3_object import InboxObject, read_inbox_object
from stepensemble.storage.keys import FAILURE, KEY_BYTES, OUTBOX, RESPONSE, response_key, to_portable_key

DETAIL = {"key": "inbox/a.json", "size": 3, "etag": "abc", "version-id": "v1", "sequencer": "0A"}
SEQUENCERS = st.text("0123456789ABCDEF", min_size=1, max_size=20)
PARTS = st.text("a.é漢😀 _%#?+\n\x7f", max_size=12)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join)


def object_(sequencer: str = "0", **more: Any) -> InboxObject:
    return InboxObject(**{"key": "inbox/a", "size": 1, "etag": "e", "sequencer": sequencer, **more})


# ------------------------------------------------------------------------------------------------------ sequencers


@given(SEQUENCERS, SEQUENCERS, SEQUENCERS)
def test_older_is_a_strict_order(first: str, second: str, third: str) -> None:
    assert not object_(first).is_older(first)
    assert not (object_(first).is_older(second) and object_(second).is_older(first))
    if object_(first).is_older(second) and object_(second).is_older(third):
        assert object_(first).is_older(third)


@given(SEQUENCERS, SEQUENCERS)
def test_sequencers_compare_as_hex_fractions(first: str, second: str) -> None:
    fractions = [Fraction(int(digits, 16), 16 ** len(digits)) for digits in (first, second)]
    assert object_(first).is_older(second) == (fractions[0] < fractions[1])


def test_a_shorter_one_is_padded_on_its_right() -> None:
    assert object_("0A").is_older("0A1")
    assert not object_("0B").is_older("0A1")
    assert not object_("0A").is_older("0A00")
    assert not object_("0A00").is_older("0A")


# ---------------------------------------------------------------------------------------------------------- events


def test_the_object_of_an_event_is_read_and_other_keys_are_ignored() -> None:
    assert read_inbox_object({**DETAIL, "more": 1}) == InboxObject("inbox/a.json", 3, "abc", "0A", "v1")


@pytest.mark.parametrize(
    "detail", [{}, {"key": "inbox/a"}, {**DETAIL, "size": "3"}, {**DETAIL, "key": None}, "inbox/a", None]
)
def test_what_is_not_an_object_is_rejected(detail: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        read_inbox_object(detail)


@pytest.mark.parametrize("unversioned", [{}, {"version-id": None}, {"version-id": "null"}])
def test_without_a_version_id_a_version_is_named_by_its_sequencer_and_etag(unversioned: dict[str, Any]) -> None:
    detail = {name: value for name, value in DETAIL.items() if name != "version-id"} | unversioned
    found = read_inbox_object(detail)
    assert (found.version_id, found.version) == (None, "0A-abc")
    assert read_inbox_object({**detail, "sequencer": "0B"}).version != found.version
    assert read_inbox_object({**detail, "etag": "abd"}).version != found.version


def test_a_version_id_alone_names_a_version() -> None:
    assert read_inbox_object(DETAIL).version == read_inbox_object({**DETAIL, "sequencer": "0F"}).version == "v1"


# ------------------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize(
    ("key", "response"),
    [
        ("inbox/a.json", "outbox/a.json.json"),
        ("inbox/a/b c/d.csv", "outbox/a/b c/d.csv.json"),
        ("inbox/ü/漢😀.png", "outbox/ü/漢😀.png.json"),
        ("inbox/a+%2F#?'\".json", "outbox/a+%2F#?'\".json.json"),
        ("inbox/inbox/a", "outbox/inbox/a.json"),
        ("inbox//a", "outbox/_/a.json"),
        ("inbox/a//b", "outbox/a/_/b.json"),
        ("inbox/./../a", "outbox/._/.._/a.json"),
        ("inbox/..", "outbox/.._.json"),
        ("inbox/.a/b.", "outbox/.a/b..json"),
        ("inbox/a\n\x00b", "outbox/a__b.json"),
    ],
)
def test_the_key_of_a_response_follows_from_the_objects(key: str, response: str) -> None:
    assert response_key(key, None, RESPONSE) == response
    assert response_key(key, None, FAILURE) == response.removesuffix(".json") + ".error.json"
    assert response_key(key, "v1", RESPONSE) == response.removesuffix(".json") + ".v1.json"


@pytest.mark.parametrize("letter", ["a", "é", "漢", "😀"])
@pytest.mark.parametrize("version", [None, "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"])
def test_the_response_to_the_longest_key_has_a_key_too(letter: str, version: str | None) -> None:
    # S3 counts bytes of UTF-8: 1024 for the key, 6 of them for the prefix.
    longest = "inbox/" + letter * ((KEY_BYTES - len("inbox/")) // len(letter.encode()))
    key = response_key(longest, version, FAILURE)
    assert KEY_BYTES - len("😀".encode()) < len(key.encode()) <= KEY_BYTES
    assert key.endswith(FAILURE if version is None else f".{version}{FAILURE}")
    assert response_key(longest[:-1] + "b", version, FAILURE) != key


def test_a_name_is_truncated_only_if_it_is_too_long() -> None:
    fits = "a" * (KEY_BYTES - len(OUTBOX) - len(RESPONSE))
    assert response_key(f"inbox/{fits}", None, RESPONSE) == f"outbox/{fits}.json"
    assert "~" in response_key(f"inbox/{fits}a", None, RESPONSE)


@given(NAMES, st.sampled_from([None, "v1"]), st.sampled_from([RESPONSE, FAILURE]))
def test_every_response_has_a_key_in_the_outbox_that_every_client_can_read(
    name: str, version: str | None, ending: str
) -> None:
    key = response_key(f"inbox/{name}", version, ending)
    assert key.startswith(OUTBOX)
    assert len(key.encode()) <= KEY_BYTES
    assert all(part.strip(".") for part in key.split("/"))
    assert to_portable_key(key) == key


@given(NAMES, st.text("abc0123456789-", min_size=1, max_size=40), st.text("abc0123456789-", min_size=1, max_size=40))
def test_each_version_of_a_key_has_its_own_response(name: str, first: str, second: str) -> None:
    keys = {response_key(f"inbox/{name}", version, RESPONSE) for version in (first, second, None)}
    assert len(keys) == len({first, second, None})
