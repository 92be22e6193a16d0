"""A folder as the inbox: what is dropped there goes through the bucket's, and its answer comes back beside it.

What was asked and has no answer yet is noted in the folder of answers, so that a command that was killed asks nothing
twice: the next one waits for the same version of the object.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import Result
from stepensemble.batch.report.summary import Summary
from stepensemble.cli.batch_runs import fetch_results
from stepensemble.cli.stacks import Stack
from stepensemble.core.aggregation.prediction import Prediction
from stepensemble.core.errors import ObjectMissing, StackOutdated
from stepensemble.core.payload import Pointer
from stepensemble.local.template import write_atomically
from stepensemble.storage.keys import ANSWER, FAILURE, INBOX, OUTBOX, RESULTS, response_key, to_portable_key

NOTES = ".asked.json"
AT_ONCE = 8
"""Files that wait for an answer at the same time; others wait for their turn."""

LOCAL_LOOK, DEPLOYED_LOOK = 0.1, 1.0
"""Seconds between looks at the folder, and at the answers."""


class UploadedFile(Struct, frozen=True):
    """A file that was uploaded: as it was then, and the object's version."""

    size: int
    modified: int
    version: str


@dataclass(frozen=True, slots=True)
class FileResponse:
    """A file that has an answer.

    Attributes:
        name: of the file, from the folder.
        document: the answer, or the failure, as it is in the outbox.
        place: where that is now.
        results: the folder with a run's results; None of anything else.
    """

    name: str
    document: Mapping[str, Any]
    place: Path
    results: Path | None

    @property
    def failed(self) -> bool:
        """Whether it is a failure."""
        return "error" in self.document

    @property
    def predictions(self) -> Sequence[Prediction]:
        """The answer's predictions; none of a run and of a failure."""
        return msgspec.convert(self.document.get("predictions", []), list[Prediction])


@dataclass(slots=True)
class Watch:
    """A folder that is watched.

    Attributes:
        folder: where files are dropped; hidden ones are passed over, and so are `outbox`, and names that no object has.
            Symbolic links are not followed: by them, a person who may drop a file could read others with the rights of
            the one who watches.
        outbox: where answers go; none goes through a symbolic link below it.
        linked: names of files that were passed over for a link, their own or their answer's.
    """

    stack: Stack
    folder: Path
    outbox: Path
    linked: set[str] = field(default_factory=set)
    _asked: dict[str, UploadedFile] = field(default_factory=dict)
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take over what an earlier command has asked, of files that are still the same."""
        self.outbox.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            noted = msgspec.json.decode((self.outbox / NOTES).read_bytes(), type=dict[str, UploadedFile])
            found = self._look()
            self._asked = {
                name: asked for name, asked in noted.items() if found.get(name) == (asked.size, asked.modified)
            }
        if self.stack.local:
            for name, asked in list(self._asked.items()):
                self._ask_again(name, asked)

    def answers(
        self,
        *,
        once: bool,
        starts: Callable[[str], None] = lambda _: None,
        passes_over: Callable[[str], None] = lambda _: None,
    ) -> Iterator[FileResponse]:
        """Yield answers as they come; for ever, or until every file that is there has one.

        Args:
            once: whether to end then.
            starts: called with the name of each file that is uploaded.
            passes_over: called once with the name of each file that is not, for a symbolic link.

        Raises:
            StackOutdated: the stack's bucket keeps no versions.
        """
        pause = LOCAL_LOOK if self.stack.local else DEPLOYED_LOOK
        passed_over: set[str] = set()
        while True:
            waiting = self._settled()
            for name in sorted(self.linked - passed_over):
                passes_over(name)
            passed_over |= self.linked
            for name, (size, modified) in waiting[: AT_ONCE - len(self._asked)]:
                starts(name)
                self._ask(name, size, modified)
            for name, asked in list(self._asked.items()):
                answered = self._fetch(name, asked)
                if answered is not None:
                    del self._asked[name]
                    self._note()
                    yield answered
            if once and not self._asked and not self._unanswered():
                return
            time.sleep(pause)

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return the size and the time of every file."""
        found: dict[str, tuple[int, int]] = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.is_relative_to(self.outbox) or any(part.startswith(".") for part in name.parts):
                continue
            with contextlib.suppress(FileNotFoundError):
                if not _is_key(name.as_posix()):
                    continue
                if path.is_symlink() or (path.is_file() and self._is_linked(name)):
                    self.linked.add(name.as_posix())
                elif path.is_file():
                    found[name.as_posix()] = _observe(path)
        return found

    def _is_linked(self, name: Path) -> bool:
        answer = self._place(name.as_posix(), ANSWER).relative_to(self.outbox)
        return (
            _has_link(self.folder, name)
            or _has_link(self.outbox, answer.parent)
            or _has_link(self.outbox, Path(RESULTS))
        )

    def _unanswered(self) -> dict[str, tuple[int, int]]:
        return {
            name: seen
            for name, seen in self._look().items()
            if name not in self._asked and not self._is_answered(name, seen[1])
        }

    def _settled(self) -> list[tuple[str, tuple[int, int]]]:
        """Return files to ask about that are as they were at the last look: others may still be written."""
        found = self._unanswered()
        settled = [(name, seen) for name, seen in found.items() if self._seen.get(name) == seen]
        self._seen = found
        return settled

    def _is_answered(self, name: str, modified: int) -> bool:
        for ending in (ANSWER, FAILURE):
            with contextlib.suppress(FileNotFoundError):
                if self._place(name, ending).stat().st_mtime_ns >= modified:
                    return True
        return False

    def _place(self, name: str, ending: str) -> Path:
        return self.outbox / response_key(INBOX + name, None, ending).removeprefix(OUTBOX)

    def _ask(self, name: str, size: int, modified: int) -> None:
        try:
            body: bytes | mmap.mmap = b""
            with open(self.folder / name, "rb", opener=_open_unlinked) as opened, contextlib.ExitStack() as exits:
                if size:
                    body = exits.enter_context(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
                version = self.stack.data.add_version(INBOX + name, body)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            return  # taken away meanwhile, or a link now
        if version is None:
            raise StackOutdated(f"{self.stack.data.name} keeps no versions of its objects; deploy the stack again")
        self._asked[name] = UploadedFile(size, modified, version)
        self._note()

    def _ask_again(self, name: str, asked: UploadedFile) -> None:
        """Start what the local stack could not end, as it has ended itself; by the same names, so nothing is twice."""
        try:
            found = self.stack.data.head(INBOX + name, asked.version)
        except ObjectMissing:  # it was started empty meanwhile
            del self._asked[name]
            return
        told = {"key": INBOX + name, "size": found.size, "etag": found.version.strip('"'), "version-id": asked.version}
        self.stack.step_functions.start_execution(
            stateMachineArn=self.stack.inbox_machine, input=msgspec.json.encode({"object": told}).decode()
        )

    def _fetch(self, name: str, asked: UploadedFile) -> FileResponse | None:
        for ending in (ANSWER, FAILURE):
            with contextlib.suppress(ObjectMissing):
                body = self.stack.data.read(response_key(INBOX + name, asked.version, ending))
                document = msgspec.json.decode(body)
                results = self._fetch_results(document) if "summary" in document else None
                place = self._place(name, ending)
                place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, body)
                with contextlib.suppress(FileNotFoundError):
                    if _observe(self.folder / name) != (asked.size, asked.modified):
                        # It was changed since it was asked, and shall be again.
                        os.utime(place, ns=(asked.modified, asked.modified))
                self._place(name, FAILURE if ending == ANSWER else ANSWER).unlink(missing_ok=True)
                return FileResponse(name, document, place, results)
        return None

    def _fetch_results(self, document: Mapping[str, Any]) -> Path:
        result = msgspec.convert(document, Result)
        summary = msgspec.json.decode(self.stack.data.read(Pointer(result.summary).split()[1]), type=Summary)
        return fetch_results(self.stack, summary, self.outbox / RESULTS)

    def _note(self) -> None:
        write_atomically(self.outbox / NOTES, msgspec.json.encode(self._asked))


def _observe(path: Path) -> tuple[int, int]:
    """Return a file's size, and when it was last written or moved; the time that its content claims may be any."""
    stat = path.stat()
    return stat.st_size, stat.st_ctime_ns


def _has_link(folder: Path, name: Path) -> bool:
    """Say whether a path below a folder is, or goes through, a symbolic link."""
    return any((folder / part).is_symlink() for part in (name, *name.parents) if part != Path())


def _open_unlinked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _is_key(name: str) -> bool:
    """Say whether an object may be called so; a file's name is bytes, and may hold anything."""
    try:
        return name.encode().decode() == to_portable_key(name)
    except UnicodeEncodeError:
        return False
