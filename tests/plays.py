"""Plays that tests run on this machine."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import ansible_mitogen
import yaml

__all__ = [
    "LOCAL",
    "MITOGEN",
    "ROOT",
    "ansible_environment",
    "ansible_playbook",
    "role_of",
    "run_play",
]

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
"""Variables of a host that is this machine."""

ROOT = Path(__file__).resolve().parents[1]
_BIN = Path(sys.executable).parent

MITOGEN = {
    "ANSIBLE_STRATEGY": "mitogen_linear",
    "ANSIBLE_STRATEGY_PLUGINS": str(Path(ansible_mitogen.__file__).parent / "plugins/strategy"),
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
}
"""The settings that scripts/with_mitogen makes."""


def ansible_environment(path: Path | None = None, *, mitogen: bool = True) -> dict[str, str]:
    """Return the environment of a user in the repository: its ansible.cfg, whole lines, no colours.

    Ansible's settings of this process are left out: scripts/suites has some that hide results.

    Args:
        path: a folder of programs that are found before all others.
        mitogen: run plays with Mitogen, else with Ansible's own strategy.
    """
    mine = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    folders = [str(path)] if path is not None else []
    strategy = MITOGEN if mitogen else {}
    return (
        mine
        | strategy
        | {
            "PATH": os.pathsep.join([*folders, str(_BIN), os.environ.get("PATH", "")]),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "COLUMNS": "1000",
        }
    )


class _ForkServer:
    """tests/ansible_fork_server.py, started at the first playbook and ended with this process."""

    def __init__(self, *prefix: str, mitogen: bool) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, ROOT / "tests/ansible_fork_server.py"],
            cwd=ROOT,
            env=ansible_environment(mitogen=mitogen),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._process.communicate)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], umask: int
    ) -> subprocess.CompletedProcess[str]:
        """Run ansible-playbook and return its exit status and output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with NamedTemporaryFile("r+") as stdout, NamedTemporaryFile("r+") as stderr:
            request = {
                "arguments": arguments,
                "environment": environment,
                "umask": umask,
                "stdout": stdout.name,
                "stderr": stderr.name,
            }
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "tests/ansible_fork_server.py has ended, see its output above"
            return subprocess.CompletedProcess(
                ["ansible-playbook", *arguments], int(answer), stdout.read(), stderr.read()
            )


@functools.cache
def _fork_server(*prefix: str, mitogen: bool) -> _ForkServer:
    return _ForkServer(*prefix, mitogen=mitogen)


def ansible_playbook(
    *arguments: str | Path,
    as_root: bool = False,
    path: Path | None = None,
    mitogen: bool = False,
    umask: int = 0o022,
) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook in the repository and return its exit status and output.

    Args:
        as_root: run as root; a test that is not run by root runs this program in a user namespace.
        path: a folder of programs that are found before all others.
        mitogen: run plays with Mitogen. It saves time from about six modules on a host.
        umask: the umask of the program.
    """
    prefix = ("unshare", "--map-root-user") if as_root and os.getuid() != 0 else ()
    server = _fork_server(*prefix, mitogen=mitogen)
    environment = ansible_environment(path, mitogen=mitogen)
    return server.run([str(each) for each in arguments], environment, umask)


def role_of(name: str, tasks: str) -> dict[str, Any]:
    """Return the task that runs a task file of a role."""
    return {"ansible.builtin.import_role": {"name": name, "tasks_from": tasks}}


def run_play(
    folder: Path,
    tasks: list[dict[str, Any]],
    *arguments: str,
    inventory: Mapping[str, Any] | Path,
    hosts: str = "all",
    variables: Mapping[str, Any] | None = None,
    as_root: bool = False,
    path: Path | None = None,
    mitogen: bool = False,
    umask: int = 0o022,
) -> subprocess.CompletedProcess[str]:
    """Run tasks with the repository's ansible.cfg and return the exit status and output.

    Args:
        folder: where the play and the inventory are written.
        arguments: further arguments of ansible-playbook.
        inventory: the inventory's content, or the path of one.
        hosts: the play's hosts, a pattern.
        variables: given as `-e`.
        as_root, path, mitogen, umask: as in ansible_playbook.
    """
    where = inventory if isinstance(inventory, Path) else folder / "hosts.yml"
    if not isinstance(inventory, Path):
        where.write_text(yaml.safe_dump(dict(inventory)))
    play = {"hosts": hosts, "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    return ansible_playbook(
        *("-i", str(where), "-e", json.dumps(dict(variables or {}))),
        *(*arguments, str(folder / "play.yml")),
        as_root=as_root,
        path=path,
        mitogen=mitogen,
        umask=umask,
    )
