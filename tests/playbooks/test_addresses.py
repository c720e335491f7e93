"""A host's address is base_address where it is set, else ansible_host: one of them is enough."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.plays import LOCAL, ROOT, ansible_playbook, run_play

GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")
EXPRESSIONS = {
    "pki": "pki_permitted_networks",
    "postgres": "postgres_client_addresses",
    "mcp_server": "([mcp_server_public_url] + __mcp_server_loadbalancer_addresses)",
    "nginx": "nginx_listen_addresses",
    "redis": "redis_listen_addresses",
    "prometheus": "prometheus_listen_address",
    "node_exporter": "node_exporter_listen_address",
}


@pytest.mark.parametrize(
    "addresses",
    [
        {"base_address": "192.0.2.1"},
        {"ansible_host": "192.0.2.1"},
        {"base_address": "192.0.2.1", "ansible_host": "all1.example.com"},
    ],
    ids=" and ".join,
)
def test_every_role_finds_the_address(tmp_path: Path, addresses: dict[str, str]) -> None:
    hosts = {"all1": {**addresses, **LOCAL}}
    inventory = {"all": {"children": {name: {"hosts": hosts} for name in GROUPS}}}
    variables = [
        {"ansible.builtin.include_vars": str(ROOT / f"roles/{role}/{part}/main.yml")}
        for role in EXPRESSIONS
        for part in ("defaults", "vars")
    ]
    told = [
        {"ansible.builtin.debug": {"msg": f"{role}={{{{ {expression} | to_json }}}}"}}
        for role, expression in EXPRESSIONS.items()
    ]

    done = run_play(tmp_path, [*variables, *told], inventory=inventory)
    checked = ansible_playbook("-i", tmp_path / "hosts.yml", "playbooks/inventory.yml")

    assert checked.returncode == 0, checked.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(re.findall(r"msg: '?(\w+)=(.*?)'?$", done.stdout, re.MULTILINE))
    assert {role: json.loads(value) for role, value in found.items()} == {
        "pki": ["192.0.2.1/32", "127.0.0.0/8"],
        "postgres": ["192.0.2.1"],
        "mcp_server": ["https://192.0.2.1", "192.0.2.1"],
        "nginx": ["192.0.2.1"],
        "redis": ["192.0.2.1"],
        "prometheus": "192.0.2.1",
        "node_exporter": "192.0.2.1",
    }
