"""Plays that tests run on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
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
"""The settings that scripts/with_mitogen makes: tests run playbooks in half the time with them."""


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


def ansible_playbook(
    *arguments: str | Path,
    as_root: bool = False,
    path: Path | None = None,
    mitogen: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook in the repository and return how it ended, with its output.

    Args:
        as_root: files are root's; whoever is not root is it for this program only.
        path: a folder of programs that are found before all others.
        mitogen: as in ansible_environment.
    """
    root = ("unshare", "--map-root-user") if as_root and os.getuid() != 0 else ()
    return subprocess.run(
        [*root, _BIN / "ansible-playbook", *arguments],
        cwd=ROOT,
        env=ansible_environment(path, mitogen=mitogen),
        capture_output=True,
        text=True,
        check=False,
    )


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
    mitogen: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run tasks with the repository's ansible.cfg and return how it ended, with its output.

    Args:
        folder: where the play and the inventory are written.
        arguments: further ones of ansible-playbook.
        inventory: its content, or an inventory that exists.
        hosts: whom the play is for.
        variables: given as `-e`.
        as_root: files are root's; whoever is not root is it for this program only.
        path: a folder of programs that are found before all others.
        mitogen: as in ansible_environment.
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
    )
