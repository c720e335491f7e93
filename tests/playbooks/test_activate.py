"""A node whose change fails goes back to its last ready release, configuration and credentials.

The role's own tasks run on this machine, in folders of the test. Two programs stand for the server: a
systemctl that reads credentials at a restart, as systemd does, and a mcpctl that is ready with one
password only.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.plays import LOCAL, ROOT, role_of, run_play

RIGHT, WRONG = "right-" * 4, "wrong-" * 4

SYSTEMCTL = """\
case "$*" in
  *show*) printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\nUnitFileState=enabled\\n' ;;
  *is-active*) echo active ;;
  *restart*) rm -rf {node}/loaded && cp -r {node}/etc/credentials {node}/loaded ;;
esac
"""
# While the file `cut` exists, the run is killed in the middle of the wait. ansible-playbook is the child
# of a child of the test process (tests/ansible_fork_server.py).
MCPCTL = """\
case "$*" in *check*) exit ;; esac
if [ -e {node}/cut ]; then
  parent_of() {{ awk '/^PPid/ {{print $2}}' "/proc/$1/status"; }}
  run=$$
  while [ "$(parent_of "$(parent_of "$run")")" != {test} ]; do run=$(parent_of "$run"); done
  kill -9 "$run"
fi
[ "$(cat {node}/loaded/redis_password)" = {right} ] && grep -q INFO {node}/etc/config.yaml && exit
echo '{{"ready": false, "checks": {{"counters": "WRONGPASS"}}}}'
exit 1
"""


class Node:
    """A node of its own folders, and the runs that change it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.config, self.opt, self.state = folder / "etc", folder / "opt", folder / "state"
        for path in (self.config / "credentials", self.config / "credentials.next"):
            path.mkdir(parents=True, mode=0o700, exist_ok=True)
        (folder / "bin").mkdir(exist_ok=True)
        self._program(folder / "bin/systemctl", SYSTEMCTL)
        (folder / "ca.pem").write_text("the authority")

    def _program(self, path: Path, text: str) -> None:
        body = text.format(node=self._folder, test=os.getpid(), right=RIGHT)
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o755)

    def roll_out(
        self, release: str, *, password: str = RIGHT, config: str = "good"
    ) -> subprocess.CompletedProcess[str]:
        """Bring a release with a configuration and a password to the node."""
        (self.opt / "releases" / release / "bin").mkdir(parents=True, exist_ok=True)
        self._program(self.opt / "releases" / release / "bin/mcpctl", MCPCTL)
        (self.opt / "releases" / release / ".complete").write_text(release)
        variables: dict[str, Any] = {
            **LOCAL,
            "mcp_server_jwt_secret": "a" * 32,
            "mcp_server_redis_password": password,
            "mcp_server_database_password": "c" * 32,
            "mcp_server_settings": {"log": {"level": "INFO" if config == "good" else "ERROR"}},
            "mcp_server_ready_timeout_s": 1,
            "pki_ca_certificate_file": str(self._folder / "ca.pem"),
            "__mcp_server_is_installed": True,
            "__mcp_server_config_dir": str(self.config),
            "__mcp_server_release": release,
            "__mcp_server_release_dir": str(self.opt / "releases" / release),
            "mcp_server_gateway_return_s": 0,
            "__mcp_server_root": str(self.opt),
            "__mcp_server_unit_file": str(self._folder / "unit"),
            "__mcp_server_state_dir": str(self.state),
            "__mcp_server_user": "root",
        }
        return run_play(
            self._folder,
            [role_of("mcp_server", name) for name in ("write", "decide", "service")],
            inventory=ROOT / "inventories/lab",
            hosts="mcp1",
            variables=variables,
            as_root=True,
            path=self._folder / "bin",
            mitogen=True,
        )

    def runs(self) -> dict[str, object]:
        """Return what the node runs with, and what would restart it."""
        return {
            "release": (self.opt / "current").readlink().name,
            "config": (self.config / "config.yaml").read_text(),
            "credentials": contents(self.config / "credentials"),
            "loaded": contents(self._folder / "loaded"),
            "unit": (self._folder / "unit").read_text(),
        }

    def cut(self, *, on: bool) -> None:
        """Let runs end while they wait until the server is ready."""
        (self._folder / "cut").touch() if on else (self._folder / "cut").unlink()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a node that release r1 runs on, with a copy of it beside it."""
    folder = tmp_path_factory.mktemp("installed") / "node"
    folder.mkdir()
    done = Node(folder).roll_out("r1")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(folder, folder.with_name("copy"), symlinks=True)
    return folder


@pytest.fixture
def node(installed: Path) -> Node:
    """The node as it was after the roll-out of r1."""
    shutil.rmtree(installed)
    shutil.copytree(installed.with_name("copy"), installed, symlinks=True)
    return Node(installed)


def test_a_wrong_secret_is_taken_back(node: Node) -> None:
    before = node.runs()

    failed = node.roll_out("r2", password=WRONG)

    said = " ".join(failed.stdout.split())
    assert failed.returncode != 0
    assert "did not become ready with release r2" in said
    assert "It runs r1 with its configuration and credentials again. The nodes after it" in said
    assert WRONG not in failed.stdout + failed.stderr
    assert node.runs() == before


def test_an_interrupted_change_is_no_state_to_go_back_to(node: Node) -> None:
    before = node.runs()
    node.cut(on=True)
    cut = node.roll_out("r2", password=WRONG, config="bad")
    assert cut.returncode == -9
    assert (node.opt / "current").readlink().name == "r2"
    kept = node.state / f"snapshots/mcp-server/current/{node.config}/credentials"
    assert contents(kept)["redis_password"] == RIGHT
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()} == {0o400}
    node.cut(on=False)

    failed = node.roll_out("r2", password=WRONG, config="bad")

    assert "It runs r1 with its configuration and credentials again." in " ".join(
        failed.stdout.split()
    )
    assert node.runs() == before


def test_a_mended_change_comes_through_and_leaves_no_other_secrets_than_those_in_use(
    node: Node,
) -> None:
    node.roll_out("r2", password=WRONG)

    done = node.roll_out("r2")
    again = node.roll_out("r2")

    assert done.returncode == 0, done.stdout
    assert node.runs()["release"] == "r2"
    assert "changed=0" in again.stdout
    folders = (node.config, node.state)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    secret = [path for path in files if RIGHT in path.read_text()]
    names = ["credentials", "credentials", "credentials.next"]  # one of them in the snapshot
    assert sorted(path.parent.name for path in secret) == names
    assert [path for path in files if WRONG in path.read_text()] == []
    for path in secret:
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_after_going_back_the_next_run_with_the_previous_values_is_the_last_to_restart(
    node: Node,
) -> None:
    before = node.runs()
    node.roll_out("r2", password=WRONG)

    done = node.roll_out("r1")
    again = node.roll_out("r1")

    assert done.returncode == 0, done.stdout
    assert node.runs() == before
    assert "changed=0" in again.stdout


def test_a_file_that_another_changed_is_installed_again(node: Node) -> None:
    before = node.runs()
    (node.config / "config.yaml").write_text("changed by hand")

    done = node.roll_out("r1")

    assert done.returncode == 0, done.stdout
    assert node.runs() == before


def test_a_first_start_that_fails_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    node = Node(tmp_path)

    first = node.roll_out("r1", password=WRONG)
    second = node.roll_out("r1", password=WRONG)

    for failed in (first, second):
        assert "There is no previous release to restore." in " ".join(failed.stdout.split())
