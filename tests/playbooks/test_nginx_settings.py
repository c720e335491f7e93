"""The role nginx takes numbers however they are given, and refuses those that are not above 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = (
    "nginx_concurrent_requests",
    "nginx_connect_timeout_s",
    "nginx_max_body_bytes",
    "nginx_read_timeout_s",
    "nginx_requests_burst",
    "nginx_requests_per_second",
    "nginx_upstream_fail_timeout_s",
    "nginx_upstream_keepalive",
    "nginx_upstream_max_fails",
    "nginx_worker_connections",
)


def preflight(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the role's checks on this machine, with the arguments of a user."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups = {name: {"hosts": {"all1": host}} for name in ("loadbalancers", "mcp_servers")}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    role = {"name": "nginx", "tasks_from": "preflight"}
    tasks = [{"ansible.builtin.include_role": role}]
    play = {"hosts": "loadbalancers", "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(folder / "hosts.yml"), str(folder / "play.yml"), *arguments),
        ],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_numbers_of_the_command_line_are_numbers(tmp_path: Path) -> None:
    given = [word for name in NUMBERS for word in ("-e", f"{name}=500")]

    result = preflight(tmp_path, *given)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_what_is_not_above_zero_is_named(tmp_path: Path, value: str) -> None:
    result = preflight(tmp_path, "-e", f"nginx_requests_burst={value}")

    assert result.returncode != 0
    assert "whole numbers above 0: nginx_requests_burst." in " ".join(result.stdout.split())
