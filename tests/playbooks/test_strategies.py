"""Mitogen is a choice: what a run does and says is the same as with Ansible's own strategy."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, MITOGEN, ROOT, ansible_playbook

HOSTS = ("node1", "node2", "node3")

SHELL = "ansible.builtin.shell"
DEBUG = "ansible.builtin.debug"

FEATURES: list[dict[str, Any]] = [
    {
        "name": "Files, handlers, loops and templates",
        "tasks": [
            {
                "name": "Write a file of each host",
                "ansible.builtin.copy": {
                    "content": "{{ inventory_hostname }} {{ item }}\n",
                    "dest": "{{ folder }}/{{ inventory_hostname }}.{{ item }}",
                    "mode": "0640",
                },
                "loop": ["a", "b"],
                "notify": "Tell it",
            },
            {
                "name": "Leave what is there",
                "ansible.builtin.file": {"path": "{{ folder }}", "state": "directory"},
            },
            {"name": "Tell it now", "ansible.builtin.meta": "flush_handlers"},
            {
                "name": "Remove a line that is not there",
                "ansible.builtin.lineinfile": {
                    "path": "{{ folder }}/{{ inventory_hostname }}.a",
                    "line": "none",
                    "state": "absent",
                },
                "tags": ["chosen"],
            },
        ],
        "handlers": [
            {"name": "Tell it", DEBUG: {"msg": "{{ inventory_hostname }} was told"}},
        ],
    },
    {
        "name": "One host, then the rest",
        "serial": [1, "100%"],
        "tasks": [
            {
                "name": "Note whose turn it is",
                SHELL: "echo {{ inventory_hostname }} >>{{ folder }}/turns",
                "changed_when": True,
                "throttle": 1,
            },
            {
                "name": "Note who began a turn",
                SHELL: "echo {{ inventory_hostname }} began >>{{ folder }}/turns",
                "changed_when": True,
                "run_once": True,
            },
        ],
    },
    {
        "name": "Delegation",
        "tasks": [
            {
                "name": "Write on another host",
                "ansible.builtin.copy": {
                    "content": "by {{ inventory_hostname }}\n",
                    "dest": "{{ folder }}/delegated.{{ inventory_hostname }}",
                    "mode": "0600",
                },
                "delegate_to": "node3",
                "throttle": 1,
            },
            {
                "name": "Give a fact to another host",
                "ansible.builtin.set_fact": {"given": "by {{ inventory_hostname }}"},
                "delegate_to": "node3",
                "delegate_facts": True,
                "when": "inventory_hostname == 'node2'",
            },
            {
                "name": "Tell the fact",
                DEBUG: {"msg": "{{ given | default('none') }}"},
                "tags": ["chosen"],
            },
        ],
    },
    {
        "name": "Plugins of the bundle",
        "tasks": [
            {
                "name": "Make a secret",
                "enterprise.mcp.generated_secrets": {
                    "directory": "{{ folder }}/secrets",
                    "secrets": [{"name": "jwt"}],
                },
                "run_once": True,
            },
            {
                "name": "Tell how long it is",
                DEBUG: {
                    "msg": "{{ lookup('enterprise.mcp.secret', 'jwt',"
                    " directory=folder ~ '/secrets') | length }}"
                },
                "when": "not ansible_check_mode",
            },
            {
                "name": "Look whether a service has loaded its files",
                "enterprise.mcp.loaded_files": {
                    "loads": {"Tell it": ["{{ folder }}/turns"]},
                    "directory": "{{ folder }}/loaded",
                },
                "changed_when": False,
            },
            {
                "name": "Refuse an unknown variable",
                "enterprise.mcp.known_variables": {
                    "roles_path": str(ROOT / "roles"),
                    "hosts": ["node1"],
                },
                "vars": {"redis_prot": 1},
                "run_once": True,
                "ignore_errors": True,
            },
        ],
    },
    {
        "name": "Failures",
        "max_fail_percentage": 40,
        "tasks": [
            {
                "name": "Hide a secret",
                SHELL: "printf s3%s cret; exit 3",
                "no_log": True,
                "ignore_errors": True,
            },
            {
                "name": "Refuse a module's argument",
                "ansible.builtin.file": {"path": "{{ folder }}", "state": "sideways"},
                "ignore_errors": True,
            },
            {
                "name": "Fail for want of a program",
                "ansible.builtin.command": {"argv": ["/none/such", "{{ folder }}"]},
                "ignore_errors": True,
                "check_mode": False,
            },
            {
                "name": "Read a variable that is not defined",
                DEBUG: {"msg": "{{ nothing.at_all }}"},
                "ignore_errors": True,
            },
            {
                "name": "Look at a failure",
                "block": [
                    {
                        "name": "Fail with a reason",
                        "ansible.builtin.fail": {"msg": "because {{ inventory_hostname }}"},
                    }
                ],
                "rescue": [
                    {
                        "name": "Tell the reason",
                        DEBUG: {
                            "msg": "{{ ansible_failed_task.name }}: {{ ansible_failed_result.msg }}"
                        },
                    }
                ],
            },
            {
                "name": "Require what two hosts of three do not have",
                "ansible.builtin.assert": {
                    "that": "inventory_hostname == 'node1'",
                    "fail_msg": "{{ inventory_hostname }} is not the first",
                    "quiet": True,
                },
            },
            {"name": "Stay unreached", DEBUG: {"msg": "this must not run"}},
        ],
    },
]

# Of every run its own: times and process ids of commands, and where a module was unpacked.
_VOLATILE = re.compile(r"\b(delta|start|end): .*|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*|tmp\w{8}")


def said(output: str, folder: Path) -> list[list[str]]:
    """Return the lines of each task; hosts of one task answer in any order."""
    text = _VOLATILE.sub("", output.replace(str(folder), "FOLDER"))
    return [sorted(part.splitlines()) for part in re.split(r"(?m)^(?=TASK|PLAY|RUNNING)", text)]


def play(folder: Path, *arguments: str, mitogen: bool) -> tuple[int, list[list[str]]]:
    """Run all features and return the status and what was said."""
    work = folder / "work"
    work.mkdir()
    inventory = {"all": {"hosts": dict.fromkeys(HOSTS, LOCAL)}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    plays = [{"hosts": "all", "gather_facts": False, **play} for play in FEATURES]
    (folder / "play.yml").write_text(yaml.safe_dump(plays))
    extra: Mapping[str, str] = {"folder": str(work)}
    done = ansible_playbook(
        "-i",
        folder / "hosts.yml",
        *("-e", json.dumps(extra)),
        *arguments,
        folder / "play.yml",
        mitogen=mitogen,
    )
    return done.returncode, said(done.stdout, folder)


def written(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the mode and the content of each file but the secret's, which is random."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_text())
        for path in sorted((folder / "work").rglob("*"))
        if path.is_file() and "secrets" not in path.parts
    }


@pytest.mark.parametrize(
    "arguments",
    [(), ("--check", "--diff"), ("--tags", "chosen")],
    ids=["run", "check", "tags"],
)
def test_mitogen_does_and_says_what_ansible_does(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    folders = {mitogen: tmp_path / str(mitogen) for mitogen in (False, True)}
    for folder in folders.values():
        folder.mkdir()

    outcomes = {
        mitogen: play(folder, *arguments, mitogen=mitogen) for mitogen, folder in folders.items()
    }

    assert outcomes[True] == outcomes[False]
    assert written(folders[True]) == written(folders[False])
    text = "\n".join(line for part in outcomes[True][1] for line in part)
    assert "s3cret" not in text
    if arguments == ():
        assert outcomes[True][0] != 0
        assert "this must not run" not in text
        turns = (folders[True] / "work/turns").read_text().splitlines()
        assert turns[:2] == ["node1", "node1 began"]
        assert turns[-1] == "node2 began"


def test_the_script_makes_the_same_settings_as_the_tests() -> None:
    done = subprocess.run(
        [ROOT / "scripts/with_mitogen", "env"], capture_output=True, text=True, check=True
    )

    settings = dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)
    assert {name: settings[name] for name in MITOGEN} == MITOGEN
