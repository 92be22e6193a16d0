"""Watch a folder: upload its files to the stack's inbox, and store the responses in a folder beside them.

The folder of responses lists the files that were uploaded and have no response yet. So nothing is predicted twice after
a command was killed: the next one waits for the same version of the object.
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
from stepensemble.core.aggregation.output import Prediction
from stepensemble.core.errors import ObjectMissing, StackOutdated
from stepensemble.core.payload import Pointer
from stepensemble.local.template import write_atomically
from stepensemble.storage.keys import FAILURE, INBOX, OUTBOX, RESPONSE, RESULTS, response_key, to_portable_key

UPLOADS = ".uploads.json"
"""In the outbox: the files that were uploaded and have no response yet."""

MAX_UPLOADS = 8
"""Files that wait for a response at the same time."""

LOCAL_PAUSE, DEPLOYED_PAUSE = 0.1, 1.0
"""Seconds before the folder and the responses are read again."""


class UploadedFile(Struct, frozen=True):
    """A file that was uploaded: its size and time then, and the object's version."""

    size: int
    modified: int
    version: str


@dataclass(frozen=True, slots=True)
class FileResponse:
    """The response to a file.

    Attributes:
        name: the file's path, relative to the folder.
        document: the response, or the failure, as the stack's outbox has it.
        path: where the response is stored.
        results: the folder with a run's results; None if the file was not a dataset.
    """

    name: str
    document: Mapping[str, Any]
    path: Path
    results: Path | None

    @property
    def failed(self) -> bool:
        """Whether it is a failure."""
        return "error" in self.document

    @property
    def predictions(self) -> Sequence[Prediction]:
        """The response's predictions; empty for a run and for a failure."""
        return msgspec.convert(self.document.get("predictions", []), list[Prediction])


@dataclass(slots=True)
class Watch:
    """A folder that is watched.

    Attributes:
        folder: the folder with the files. Hidden files, `outbox`, and names that no object can have are skipped.
            Symbolic links are not followed: otherwise a user who may write into the folder could read files with the
            rights of the user who watches it.
        outbox: the folder for responses; no response is written through a symbolic link below it.
        linked: names of files that were skipped because they, or the place of their response, are a symbolic link.
    """

    stack: Stack
    folder: Path
    outbox: Path
    linked: set[str] = field(default_factory=set)
    _uploaded: dict[str, UploadedFile] = field(default_factory=dict)
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Continue with the files that an earlier command uploaded, if they have not changed."""
        self.outbox.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            saved = msgspec.json.decode((self.outbox / UPLOADS).read_bytes(), type=dict[str, UploadedFile])
            found = self._scan()
            self._uploaded = {
                name: upload for name, upload in saved.items() if found.get(name) == (upload.size, upload.modified)
            }
        if self.stack.local:
            for name, upload in list(self._uploaded.items()):
                self._restart(name, upload)

    def responses(
        self,
        *,
        once: bool,
        on_upload: Callable[[str], None] = lambda _: None,
        on_link: Callable[[str], None] = lambda _: None,
    ) -> Iterator[FileResponse]:
        """Yield responses as they arrive; forever, or until every file in the folder has one.

        Args:
            once: end as soon as every file has a response.
            on_upload: called with the name of each file before it is uploaded.
            on_link: called once with the name of each file that is skipped because of a symbolic link.

        Raises:
            StackOutdated: the stack's bucket keeps no versions.
        """
        pause = LOCAL_PAUSE if self.stack.local else DEPLOYED_PAUSE
        reported: set[str] = set()
        while True:
            waiting = self._list_stable()
            for name in sorted(self.linked - reported):
                on_link(name)
            reported |= self.linked
            for name, (size, modified) in waiting[: MAX_UPLOADS - len(self._uploaded)]:
                on_upload(name)
                self._upload(name, size, modified)
            for name, upload in list(self._uploaded.items()):
                response = self._fetch(name, upload)
                if response is not None:
                    del self._uploaded[name]
                    self._save()
                    yield response
            if once and not self._uploaded and not self._list_pending():
                return
            time.sleep(pause)

    def _scan(self) -> dict[str, tuple[int, int]]:
        """Return the size and the time of each file, by name."""
        found: dict[str, tuple[int, int]] = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.is_relative_to(self.outbox) or any(part.startswith(".") for part in name.parts):
                continue
            with contextlib.suppress(FileNotFoundError):
                if not _is_valid_key(name.as_posix()):
                    continue
                if path.is_symlink() or (path.is_file() and self._is_linked(name)):
                    self.linked.add(name.as_posix())
                elif path.is_file():
                    found[name.as_posix()] = _observe(path)
        return found

    def _is_linked(self, name: Path) -> bool:
        response = self._locate(name.as_posix(), RESPONSE).relative_to(self.outbox)
        return (
            _has_link(self.folder, name)
            or _has_link(self.outbox, response.parent)
            or _has_link(self.outbox, Path(RESULTS))
        )

    def _list_pending(self) -> dict[str, tuple[int, int]]:
        return {
            name: seen
            for name, seen in self._scan().items()
            if name not in self._uploaded and not self._has_response(name, seen[1])
        }

    def _list_stable(self) -> list[tuple[str, tuple[int, int]]]:
        """Return the pending files that have not changed since the last scan; others may still be written."""
        found = self._list_pending()
        stable = [(name, seen) for name, seen in found.items() if self._seen.get(name) == seen]
        self._seen = found
        return stable

    def _has_response(self, name: str, modified: int) -> bool:
        for ending in (RESPONSE, FAILURE):
            with contextlib.suppress(FileNotFoundError):
                if self._locate(name, ending).stat().st_mtime_ns >= modified:
                    return True
        return False

    def _locate(self, name: str, ending: str) -> Path:
        return self.outbox / response_key(INBOX + name, None, ending).removeprefix(OUTBOX)

    def _upload(self, name: str, size: int, modified: int) -> None:
        try:
            body: bytes | mmap.mmap = b""
            with open(self.folder / name, "rb", opener=_open_unlinked) as opened, contextlib.ExitStack() as exits:
                if size:
                    body = exits.enter_context(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
                version = self.stack.data.add_version(INBOX + name, body)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            return  # it was removed since, or replaced by a link
        if version is None:
            raise StackOutdated(f"{self.stack.data.name} keeps no versions of its objects; deploy the stack again")
        self._uploaded[name] = UploadedFile(size, modified, version)
        self._save()

    def _restart(self, name: str, upload: UploadedFile) -> None:
        """Start the execution that ended with the local stack; it has the same name, so nothing is predicted twice."""
        try:
            found = self.stack.data.head(INBOX + name, upload.version)
        except ObjectMissing:  # the local stack was emptied since
            del self._uploaded[name]
            return
        etag = found.version.strip('"')
        arrived = {"key": INBOX + name, "size": found.size, "etag": etag, "version-id": upload.version}
        self.stack.step_functions.start_execution(
            stateMachineArn=self.stack.inbox_machine, input=msgspec.json.encode({"object": arrived}).decode()
        )

    def _fetch(self, name: str, upload: UploadedFile) -> FileResponse | None:
        for ending in (RESPONSE, FAILURE):
            with contextlib.suppress(ObjectMissing):
                body = self.stack.data.read(response_key(INBOX + name, upload.version, ending))
                document = msgspec.json.decode(body)
                results = self._fetch_results(document) if "summary" in document else None
                path = self._locate(name, ending)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, body)
                with contextlib.suppress(FileNotFoundError):
                    if _observe(self.folder / name) != (upload.size, upload.modified):
                        # The file has changed since its upload: an older response makes it pending again.
                        os.utime(path, ns=(upload.modified, upload.modified))
                self._locate(name, FAILURE if ending == RESPONSE else RESPONSE).unlink(missing_ok=True)
                return FileResponse(name, document, path, results)
        return None

    def _fetch_results(self, document: Mapping[str, Any]) -> Path:
        result = msgspec.convert(document, Result)
        summary = msgspec.json.decode(self.stack.data.read(Pointer(result.summary).split()[1]), type=Summary)
        return fetch_results(self.stack, summary, self.outbox / RESULTS)

    def _save(self) -> None:
        write_atomically(self.outbox / UPLOADS, msgspec.json.encode(self._uploaded))


def _observe(path: Path) -> tuple[int, int]:
    """Return a file's size, and when it was last written or moved; its modification time can be set to anything."""
    stat = path.stat()
    return stat.st_size, stat.st_ctime_ns


def _has_link(folder: Path, name: Path) -> bool:
    """Return whether a path below a folder is, or goes through, a symbolic link."""
    return any((folder / part).is_symlink() for part in (name, *name.parents) if part != Path())


def _open_unlinked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _is_valid_key(name: str) -> bool:
    """Return whether a file's name, which may be any bytes, is valid as the key of an object."""
    try:
        return name.encode().decode() == to_portable_key(name)
    except UnicodeEncodeError:
        return False
