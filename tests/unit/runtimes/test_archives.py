"""Untrusted archives: each kind of attack and damage is made here, and rejected without leaving files."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepensemble.core.errors import FileDamaged, FileUnsafe, ModelFileError
from stepensemble.runtimes.archives import (
    MIB,
    Limits,
    extract_archive,
    list_archive,
    read_archive,
    read_folder,
    write_archive,
)

FILES = {"saved_model.pb": b"graph" * 100, "variables/variables.index": b"", "assets/vocabulary.txt": b"yes\nno\n"}
SOUND = write_archive(FILES)

Archive = zipfile.ZipFile


def make(fill: Callable[[Archive], object], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Make an archive by what fills it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        fill(archive)
    return buffer.getvalue()


def named(*names: str) -> bytes:
    """Make an archive of small files with these names, as they are."""

    def fill(archive: Archive) -> None:
        for name in names:
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name  # ZipInfo itself would correct some of them
            archive.writestr(entry, b"content")

    return make(fill)


def with_mode(mode: int, name: str = "link") -> bytes:
    """Make an archive of one entry that declares to be something else than a file."""
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = mode << 16
    return make(lambda archive: archive.writestr(entry, b"/etc/passwd"))


def assert_rejected(
    body: bytes, tmp_path: Path, error: type[ModelFileError], match: str, limits: Limits | None = None
) -> None:
    """Check that an archive is rejected by every function, and leaves no file."""
    room = tmp_path / "room"
    room.mkdir()
    for open_it in (read_archive, lambda body, limits: extract_archive(body, room / "target", limits)):
        with pytest.raises(error, match=match):
            open_it(body, limits or Limits())
    assert [path.name for path in tmp_path.rglob("*")] == ["room"]


# What is written is read


def test_an_archive_returns_its_files(tmp_path: Path) -> None:
    assert read_archive(SOUND) == FILES
    assert sorted(list_archive(SOUND)) == sorted(FILES)
    extract_archive(SOUND, tmp_path / "target")
    assert read_folder(tmp_path / "target") == FILES


def test_an_unpacked_archive_is_its_owners_alone(tmp_path: Path) -> None:
    extract_archive(SOUND, tmp_path / "target")
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o700


@given(st.permutations(sorted(FILES)))
def test_the_same_files_give_the_same_archive(order: list[str]) -> None:
    assert write_archive({name: FILES[name] for name in order}) == SOUND


def test_folders_in_an_archive_are_skipped() -> None:
    body = make(lambda archive: (archive.mkdir("assets"), archive.writestr("assets/a", b"1")))
    assert read_archive(body) == {"assets/a": b"1"}


def test_an_archive_is_unpacked_into_a_new_folder_only(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(FileExistsError):
        extract_archive(SOUND, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


# Malice


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside", "leads out of the archive's folder"),
        ("variables/../../outside", "leads out of the archive's folder"),
        ("./here", "leads out of the archive's folder"),
        ("variables//twice", "leads out of the archive's folder"),
        ("/etc/passwd", "is an absolute path"),
        ("C:/Windows/system.ini", "is an absolute path"),
        ("c:relative", "is an absolute path"),
        ("..\\outside", "has a backslash"),
        ("\\\\server\\share", "has a backslash"),
        ("a\nb", "has a backslash or an unprintable character"),
        ("a\u202eb", "has a backslash or an unprintable character"),
        ("n" * 241, "is longer than 240 bytes"),
    ],
)
def test_a_name_outside_the_folder_is_rejected(tmp_path: Path, name: str, reason: str) -> None:
    assert_rejected(named("saved_model.pb", name), tmp_path, FileUnsafe, reason)


def test_a_name_with_a_null_character_is_rejected(tmp_path: Path) -> None:
    # zipfile cuts names at a zero byte, so that one name could be checked and another used.
    body = named("good.pb_/../../x").replace(b"good.pb_/../../x", b"good.pb\0/../../x")
    assert_rejected(body, tmp_path, FileUnsafe, "has a backslash or an unprintable character")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_rejected(tmp_path: Path, kind: int) -> None:
    assert_rejected(with_mode(kind | 0o777), tmp_path, FileUnsafe, "it is a link or a device")


def test_a_folder_that_is_a_link_is_rejected(tmp_path: Path) -> None:
    assert_rejected(with_mode(stat.S_IFLNK | 0o777, "assets/"), tmp_path, FileUnsafe, "it is a link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a"), ("Vocabulary.txt", "vocabulary.TXT")])
def test_a_duplicate_name_is_rejected(tmp_path: Path, names: tuple[str, str]) -> None:
    assert_rejected(named(*names), tmp_path, FileUnsafe, "twice, and readers differ on which one they use")


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "A/B")])
def test_a_file_that_is_also_a_folder_is_rejected(tmp_path: Path, names: tuple[str, str]) -> None:
    assert_rejected(named(*names), tmp_path, FileUnsafe, "as a file and as a folder")


def test_an_encrypted_entry_is_rejected(tmp_path: Path) -> None:
    body = bytearray(named("saved_model.pb"))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # where a header keeps them
        body[body.index(signature) + flags] |= 1
    assert_rejected(bytes(body), tmp_path, FileUnsafe, "it is encrypted")


def test_an_unusual_compression_method_is_rejected(tmp_path: Path) -> None:
    body = make(lambda archive: archive.writestr("a", b"1" * 100), zipfile.ZIP_LZMA)
    assert_rejected(body, tmp_path, FileUnsafe, "it is neither stored nor deflated")


def test_a_bomb_is_recognized_by_its_declared_size(tmp_path: Path) -> None:
    body = make(lambda archive: archive.writestr("zeros", bytes(3000)))
    assert_rejected(body, tmp_path, FileUnsafe, "more than 0 MiB or 10,000 files", Limits(size=2999))
    assert read_archive(body, Limits(size=3000)) == {"zeros": bytes(3000)}


def test_a_bomb_is_recognized_by_its_ratio(tmp_path: Path) -> None:
    body = make(lambda archive: archive.writestr("zeros", bytes(65 * MIB)))
    assert_rejected(body, tmp_path, FileUnsafe, "the archive unpacks to 65 MiB, more than 100 times its size")


def test_a_small_archive_with_a_high_ratio_is_accepted() -> None:
    body = make(lambda archive: archive.writestr("zeros", bytes(MIB)))
    assert len(body) < MIB / 500
    assert read_archive(body) == {"zeros": bytes(MIB)}


def test_a_bomb_that_declares_a_small_size_is_not_unpacked(tmp_path: Path) -> None:
    # The central directory declares 10 bytes, the stream has 3000: no more than the declared size is unpacked.
    body = bytearray(make(lambda archive: archive.writestr("zeros", bytes(3000))))
    struct.pack_into("<L", body, body.index(b"PK\x01\x02") + 24, 10)
    assert_rejected(bytes(body), tmp_path, FileDamaged, "Bad CRC-32")


def test_a_bomb_of_many_files_is_recognized_by_their_number(tmp_path: Path) -> None:
    assert_rejected(named(*map(str, range(11))), tmp_path, FileUnsafe, "or 10 files", Limits(entries=10))
    assert len(list_archive(named(*map(str, range(10))), Limits(entries=10))) == 10


def test_a_bomb_of_overlapping_entries_is_rejected(tmp_path: Path) -> None:
    # Two entries of the directory point at the same content of 64 bytes, which is stored once.
    single = make(lambda archive: archive.writestr("a", b"x" * 1000), zipfile.ZIP_STORED)
    start, end = single.index(b"PK\x01\x02"), single.index(b"PK\x05\x06")
    entry = single[start:end]
    other = entry[:-1] + b"b"
    size = len(entry) * 2
    closing = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, size, start, 0)
    assert_rejected(single[:start] + entry + other + closing, tmp_path, FileUnsafe, "the archive's entries overlap")


# Damage


@given(st.integers(0, len(SOUND) - 1))
def test_a_truncated_archive_is_rejected(size: int) -> None:
    with pytest.raises(FileDamaged, match="truncated or damaged"):
        read_archive(SOUND[:size])


def test_every_flipped_bit_is_detected_or_harmless() -> None:
    harmless = 0
    for bit in range(len(SOUND) * 8):
        body = bytearray(SOUND)
        body[bit // 8] ^= 1 << bit % 8
        try:
            files = read_archive(bytes(body))
        except ModelFileError:
            continue
        assert files == FILES
        harmless += 1
    assert harmless < len(SOUND) * 8 / 5  # in dates and other unused fields; most are found


def test_an_error_while_unpacking_leaves_no_file(tmp_path: Path) -> None:
    body = bytearray(make(lambda archive: [archive.writestr(name, bytes(range(256)) * 9) for name in ("a", "b")]))
    body[body.index(b"PK\x03\x04", 4) + 40] ^= 0xFF  # in the content of the second file
    assert_rejected(bytes(body), tmp_path, FileDamaged, """the archive's entry "b" is truncated or damaged""")


# Folders


def test_a_folder_with_a_link_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "model"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "vocabulary.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(FileUnsafe, match=r'"assets/vocabulary.txt" is a link or a device; put the file itself there'):
        read_folder(folder)


def test_a_folder_with_a_linked_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "assets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileUnsafe, match='"assets" is a link or a device'):
        read_folder(folder)


def test_a_folder_has_the_limits_of_an_archive(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(10))
    assert read_folder(tmp_path, Limits(size=20, entries=2)) == {"a": bytes(10), "b": bytes(10)}
    for limits in (Limits(size=19), Limits(entries=1)):
        with pytest.raises(FileUnsafe, match="has more than"):
            read_folder(tmp_path, limits)
