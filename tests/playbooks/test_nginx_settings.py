"""The role nginx takes numbers however they are given, and refuses those that are not above 0.

Its issued certificate has the names that clients use.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plays import LOCAL, ROOT, role_of, run_play

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
    groups = {name: {"hosts": {"all1": LOCAL}} for name in ("loadbalancers", "mcp_servers")}
    return run_play(
        folder,
        [role_of("nginx", "preflight")],
        *arguments,
        inventory={"all": {"children": groups}},
        hosts="loadbalancers",
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


def test_the_issued_certificate_has_every_name_that_clients_use_unless_they_see_another(
    tmp_path: Path,
) -> None:
    names = ["mcp.example.com", "a.mcp.example.com", "mcp.example.org", "192.0.2.1"]
    hosts = {"own": {}, "other": {"nginx_tls_certificate": "/etc/ssl/mcp.pem"}}
    told = "{{ inventory_hostname }}: {{ __nginx_certified_names | join(' ') }}."

    result = run_play(
        tmp_path,
        [
            {"ansible.builtin.include_vars": str(ROOT / "roles/nginx/vars/main.yml")},
            {"ansible.builtin.debug": {"msg": told}},
        ],
        inventory={
            "all": {
                "hosts": hosts,
                "vars": {
                    **LOCAL,
                    "base_domain": "mcp.example.com",
                    "nginx_server_names": names,
                    "nginx_tls_certificate": "",
                },
            }
        },
    )

    assert result.returncode == 0, result.stdout
    assert "own: mcp.example.com a.mcp.example.com mcp.example.org." in result.stdout
    assert "other: ." in result.stdout
