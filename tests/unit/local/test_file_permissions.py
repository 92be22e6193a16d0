"""The state's folder is private, also if an earlier version left it readable."""

from __future__ import annotations

import stat
from pathlib import Path

from stepensemble.local.file_permissions import make_private
from stepensemble.local.state_database import StateDatabase


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_and_its_content_become_private_and_nothing_outside_does(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o644)
    folder = tmp_path / "state"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "score.log").write_text("")
    (folder / "logs" / "score.log").chmod(0o664)
    (folder / "tool").write_text("")
    (folder / "tool").chmod(0o755)
    (folder / "link").symlink_to(outside)
    folder.chmod(0o755)
    make_private(folder)
    assert [mode(folder / name) for name in ("", "logs", "logs/score.log", "tool")] == [0o700, 0o700, 0o600, 0o700]
    assert mode(outside) == 0o644


def test_the_database_and_sqlites_files_beside_it_are_private(tmp_path: Path) -> None:
    database = StateDatabase(tmp_path / "state.db")
    database.write_fact("name", "value")
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("state.db", "state.db-wal", "state.db-shm", "state.db.changes"), 0o600
    )
    database.close()
