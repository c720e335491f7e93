"""The module enterprise.mcp.file_snapshot keeps the files of a service and brings them back."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, run_play


class Files:
    """Files of a service, a link to one of them, and the runs of the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.secret = folder / "etc/config", folder / "etc/secret"
        self.link, self.absent = folder / "current", folder / "etc/absent"
        self.snapshots = folder / "snapshots"
        self.config.parent.mkdir()
        self.config.write_text("one")
        self.secret.write_text("the-password")
        self.secret.chmod(0o400)
        self.link.symlink_to("release-1")

    def run(self, *states: str, check: bool = False, **options: Any) -> list[list[str]]:
        """Run the module once for each state; return the files that each names."""
        paths = [str(path) for path in (self.config, self.secret, self.link, self.absent)]
        given = {"name": "it", "paths": paths, "directory": str(self.snapshots), **options}
        tasks: list[dict[str, Any]] = []
        for number, state in enumerate(states):
            answer = self.folder / f"{number}.yml"
            tasks += [
                {
                    "enterprise.mcp.file_snapshot": {**given, "state": state},
                    "register": "done",
                    "check_mode": check,
                },
                {
                    "ansible.builtin.copy": {
                        "content": "{{ [done.files, done.changed] | to_json }}",
                        "dest": str(answer),
                    }
                },
            ]
        result = run_play(
            self.folder, tasks, "-vvv", inventory={"all": {"hosts": {"a1": LOCAL}}}, mitogen=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert "the-password" not in result.stdout
        answers = [
            yaml.safe_load((self.folder / f"{n}.yml").read_text()) for n in range(len(states))
        ]
        assert all(changed == bool(files) for files, changed in answers)
        return [files for files, _ in answers]

    def spoil(self) -> None:
        """Change every file and the link, as a new version does."""
        self.config.write_text("two")
        self.secret.chmod(0o644)
        self.secret.write_text("another")
        self.link.unlink()
        self.link.symlink_to("release-2")
        self.absent.write_text("new")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_restore_brings_back_content_mode_and_target(files: Files) -> None:
    files.run("taken")
    files.spoil()

    restored, again = files.run("restored", "restored")

    assert restored == sorted(map(str, [files.config, files.secret, files.link]))
    assert again == []
    assert files.config.read_text() == "one"
    assert files.secret.read_text() == "the-password"
    assert stat.S_IMODE(files.secret.stat().st_mode) == 0o400
    assert files.link.readlink() == Path("release-1")
    assert files.absent.read_text() == "new"  # the snapshot does not have it


def test_a_file_that_is_gone_is_restored(files: Files) -> None:
    files.run("taken")
    files.config.unlink()

    assert files.run("restored") == [[str(files.config)]]
    assert files.config.read_text() == "one"


def test_without_a_snapshot_nothing_is_restored(files: Files) -> None:
    assert files.run("restored") == [[]]


def test_a_snapshot_replaces_the_last_one_and_is_for_one_account(files: Files) -> None:
    first, same = files.run("taken", "taken")
    files.config.write_text("two")

    second, _ = files.run("taken", "restored")

    assert len(first) == 3
    assert (same, second) == ([], [str(files.config)])
    home = files.snapshots / "it"
    assert files.config.read_text() == "two"
    assert len([path for path in home.iterdir() if not path.is_symlink()]) == 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in (home, home / "current")} == {0o700}


def test_the_rest_of_an_interrupted_snapshot_is_removed_by_the_next(files: Files) -> None:
    files.run("taken")
    rest = files.snapshots / "it/unfinished"
    rest.mkdir()
    (rest / "config").write_text("half")
    files.config.write_text("two")

    files.run("taken")

    assert not rest.exists()


def test_check_mode_names_the_files_and_writes_none(files: Files) -> None:
    assert len(files.run("taken", check=True)[0]) == 3
    assert not files.snapshots.exists()
    files.run("taken")
    files.spoil()

    assert len(files.run("restored", check=True)[0]) == 3
    assert files.config.read_text() == "two"
