"""What provenance.json says of the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

from linnet.train.provenance import _commit


def test_a_repository_around_untracked_files_is_not_theirs(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "mine.py").write_text("1\n")
    git("add", "mine.py")
    git("commit", "-m", "one")
    inside = tmp_path / ".venv" / "linnet"
    inside.mkdir(parents=True)
    (inside / "theirs.py").write_text("2\n")
    assert _commit(inside, "theirs.py") is None
    assert _commit(tmp_path, "mine.py") == _commit(tmp_path) == _commit(inside)
    (tmp_path / "mine.py").write_text("3\n")
    found = _commit(tmp_path)
    assert found is not None
    assert found["changed"] is True
