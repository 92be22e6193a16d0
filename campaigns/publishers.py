"""Kill publishers at a random moment, and let publishers race.

Promises: the pointer always names a complete release; of two that publish at once each has published or reports that
the other was first; the published release is in the pointer, as the current one or in its history.

    python campaigns/publishers.py --kills 20 --races 20
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from laboratory import Findings, choose, read_size, start_stack

from stepensemble.cli.stacks import Stack
from stepensemble.core.errors import EnsembleError
from stepensemble.publishing.manifest_loader import Sources, read_sources
from stepensemble.publishing.publish import publish

CHILD = """
import sys
from pathlib import Path
from stepensemble.cli.stacks import local_stack
from stepensemble.publishing.publish import publish
from stepensemble.publishing.manifest_loader import read_sources
stack = local_stack(sys.argv[1], sys.argv[2])
sources = read_sources(Path(sys.argv[3]))
stack.slots, stack.releases
print("ready", flush=True)
sys.stdin.readline()
publish(sources, stack.releases, stack.slots)
print("published", flush=True)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and report."""
    size = read_size(__doc__, arguments, kills=10, races=10)
    found = Findings("publishers", vars(size))
    with start_stack() as (_, stack, project):
        kill_publishers(found, stack, project, size.kills, size.seed)
        race_publishers(found, stack, project, size.races)
    return found.report()


def write_manifest(project: Path, number: int) -> Path:
    """Write another manifest, with an artifact of its own, which must be uploaded before the pointer may move."""
    folder = project / "models"
    document = json.loads((folder / "manifest.json").read_text())
    artifact = folder / "titanic" / f"padded-{number}.tflite"
    # Bytes after a FlatBuffer's end are not read.
    artifact.write_bytes((folder / document["members"][0]["artifact"]).read_bytes() + str(number).encode() * 300_000)
    document["members"][0] |= {"artifact": f"titanic/padded-{number}.tflite", "version": f"1.{number}"}
    path = folder / f"manifest-{number}.json"
    path.write_text(json.dumps(document))
    return path


def kill_publishers(found: Findings, stack: Stack, project: Path, kills: int, seed: int) -> None:
    """Kill one publisher after the other, each in the middle of its work."""
    random, counts = choose(seed), Counter[str]()
    took = 0.5
    for number in range(kills):
        path = write_manifest(project, number)
        before = stack.releases.read_current()[0].release
        command = [sys.executable, "-c", CHILD, stack.name, str(stack.endpoint), str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            assert process.stdin is not None  # noqa: S101 (it is a pipe)
            assert process.stdout is not None  # noqa: S101
            process.stdout.readline()
            began = time.monotonic()
            process.stdin.write("go\n")
            process.stdin.flush()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0 if number == 0 else random.uniform(0, took))
            process.kill()
            printed = process.stdout.read()
        if printed:
            took = max(0.1, time.monotonic() - began)
        after = stack.releases.read_current()[0].release
        digest = read_sources(path).digest
        counts["killed after it was published" if after == digest else "killed before"] += 1
        found.expect(after in {before, digest}, f"publisher {number}: the pointer names {after}")
        found.expect(not printed or after == digest, f"publisher {number} reported a release that is not published")
        check_pointer(found, stack, f"publisher {number}")
    found.counts |= counts


def race_publishers(found: Findings, stack: Stack, project: Path, races: int) -> None:
    """Let two publishers publish at the same time, repeatedly."""
    counts = Counter[str]()
    for number in range(races):
        pair = [read_sources(write_manifest(project, 10_000 + 2 * number + one)) for one in range(2)]
        with ThreadPoolExecutor(2) as both:
            won = list(both.map(lambda sources: try_to_publish(stack, sources), pair))
        counts.update({True: "published", False: "conflict"}[one is None] for one in won)
        found.expect(None in won, f"race {number}: no one has published: {won}")
        pointer = stack.releases.read_current()[0]
        known = [pointer.release, *(term.release for term in pointer.history)]
        for sources, refused in zip(pair, won, strict=True):
            kept = sources.digest in known
            found.expect(
                kept == (refused is None),
                f"race {number}: {sources.digest[:12]} raised {refused}, in the pointer: {kept}",
            )
        check_pointer(found, stack, f"race {number}")
    found.counts |= counts


def try_to_publish(stack: Stack, sources: Sources) -> str | None:
    """Publish; return None, or the name of the error."""
    try:
        publish(sources, stack.releases, stack.slots)
    except EnsembleError as error:
        return type(error).__name__
    return None


def check_pointer(found: Findings, stack: Stack, moment: str) -> None:
    """Read everything that the pointer names; reading checks every digest."""
    try:
        release = stack.releases.read_release(stack.releases.read_current()[0].release)
        for member in release.members:
            stack.releases.read_artifact(member.artifact)
    except EnsembleError as error:
        found.broken.append(f"{moment}: the pointer is broken: {error}")


if __name__ == "__main__":
    sys.exit(main())
