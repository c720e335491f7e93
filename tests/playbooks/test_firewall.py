"""The firewall's rules: those of each host of the example, checked by nft, and what is refused.

The kernel enforces them in tests/deploy/test_firewall.py.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, ROOT, role_of, run_play

_FILTERS = runpy.run_path(
    str(ROOT / "collections/ansible_collections/enterprise/mcp/plugins/filter/firewall.py")
)
destinations = _FILTERS["destinations"]
firewall_rules, firewall_rule_faults = (
    _FILTERS["firewall_rules"],
    _FILTERS["firewall_rule_faults"],
)
network_faults = _FILTERS["network_faults"]
ROLE = ROOT / "roles/firewall"
TEMPLATES = ROLE / "templates"
GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")
HOSTS = {
    "lb1": ("loadbalancers", "192.0.2.10"),
    "mcp1": ("mcp_servers", "198.51.100.11"),
    "mcp2": ("mcp_servers", "2001:db8::12"),
    "db1": ("postgres", "198.51.100.21"),
    "cache1": ("redis", "198.51.100.22"),
    "mon1": ("monitoring", "203.0.113.31"),
    "backup1": ("backup", "203.0.113.41"),
}


def inventory(**variables: Any) -> dict[str, Any]:
    """Return an inventory of HOSTS that are all this machine."""
    children: dict[str, Any] = {}
    for name, (group, address) in HOSTS.items():
        hosts = children.setdefault(group, {"hosts": {}})["hosts"]
        hosts[name] = {"base_address": address, **LOCAL, "ansible_become": False}
    known = {"firewall_admin_networks": ["203.0.113.128/25"], "base_domain": "example.com"}
    return {"all": {"children": children, "vars": known | variables}}


def render(folder: Path, **variables: Any) -> dict[str, str]:
    """Return the rules of each host."""
    found = {"stdout_lines": ["nameserver 127.0.0.53", "nameserver 192.0.2.53"]}
    done = run_play(
        folder,
        [
            *(
                {"ansible.builtin.include_vars": str(ROLE / part / "main.yml")}
                for part in ("defaults", "vars")
            ),
            {
                "ansible.builtin.template": {
                    "src": str(TEMPLATES / "etc/enterprise-mcp/firewall/rules.nft.j2"),
                    "dest": f"{folder}/{{{{ inventory_hostname }}}}.nft",
                    "mode": "0600",
                }
            },
        ],
        inventory=inventory(),
        # include_vars has precedence over the inventory.
        variables={
            "firewall_admin_networks": ["203.0.113.128/25"],
            "__firewall_found": found,
            "__firewall_state_dir": "/nonexistent",
            **variables,
        },
        mitogen=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: (folder / f"{name}.nft").read_text() for name in HOSTS}


def accepted(rules: str, chain: str) -> list[str]:
    """Return the rules of a chain about ports, in order."""
    (text,) = re.findall(rf"chain {chain} {{\n(.*?)\n    }}", rules, re.DOTALL)
    return [line.strip() for line in text.splitlines() if re.search(r"ip6? [sd]addr {", line)]


def test_each_host_opens_its_own_ports_to_those_who_need_them(tmp_path: Path) -> None:
    rules = render(tmp_path)
    ssh = "ip saddr { 203.0.113.128/25 } tcp dport 22 accept"
    exporter = "ip saddr { 203.0.113.31 } tcp dport 9100 accept"
    servers = [
        "ip saddr {{ 198.51.100.11 }} tcp dport {0} accept",
        "ip6 saddr {{ 2001:db8::12 }} tcp dport {0} accept",
    ]

    assert accepted(rules["lb1"], "input") == [
        ssh,
        "ip saddr { 0.0.0.0/0 } tcp dport 443 accept",
        "ip6 saddr { ::/0 } tcp dport 443 accept",
        exporter,
    ]
    assert accepted(rules["mcp1"], "input") == [
        ssh,
        "ip saddr { 192.0.2.10 } tcp dport 8443 accept",
        exporter,
        "ip saddr { 203.0.113.31 } tcp dport 9464 accept",
    ]
    assert accepted(rules["db1"], "input") == [
        ssh,
        *(line.format(5432) for line in servers),
        exporter,
    ]
    assert accepted(rules["cache1"], "input") == [
        ssh,
        *(line.format(6379) for line in servers),
        exporter,
    ]


def test_a_load_balancer_reaches_the_port_of_the_servers_and_nothing_else(tmp_path: Path) -> None:
    rules = render(tmp_path)["lb1"]

    assert accepted(rules, "output") == [
        "ip daddr { 192.0.2.53 } tcp dport 53 accept",
        "ip daddr { 198.51.100.11 } tcp dport 8443 accept",
        "ip6 daddr { 2001:db8::12 } tcp dport 8443 accept",
        "ip daddr { 192.0.2.53 } udp dport 53 accept",
        "ip daddr { 0.0.0.0/0 } udp dport 123 accept",
        "ip6 daddr { ::/0 } udp dport 123 accept",
    ]


def test_only_the_database_host_reaches_the_repository_of_backups(tmp_path: Path) -> None:
    rules = render(tmp_path)
    storage = render(
        tmp_path,
        backup_s3_bucket="backups",
        backup_s3_endpoint="192.0.2.50:9000",
        backup_s3_uri_style="path",
    )

    assert "ip saddr { 198.51.100.21 } tcp dport 22 accept" in accepted(rules["backup1"], "input")
    reaches = {name for name, text in rules.items() if "{ 203.0.113.41 } tcp dport 22" in text}
    assert reaches == {"db1"}
    stores = {name for name, text in storage.items() if "{ 192.0.2.50 } tcp dport 9000" in text}
    assert stores == {"db1"}


def test_ports_networks_and_time_servers_follow_their_variables(tmp_path: Path) -> None:
    rules = render(
        tmp_path,
        postgres_port="5433",
        postgres_client_addresses=["192.0.2.77"],
        firewall_client_networks=["10.0.0.0/8", "10.200.0.0/16"][:1],
        firewall_dns_servers=["192.0.2.54"],
        base_ntp_servers=["192.0.2.123"],
        firewall_allowed_in=[{"from": ["192.0.2.99"], "port": 9100}],
        firewall_allowed_out=[
            {"to": ["DB1.example.com", "192.0.2.200", "proxy.test"], "port": "3128"},
            {"to": ["192.0.2.201"], "port": 514, "protocol": "udp"},
        ],
    )

    assert "ip saddr { 192.0.2.77, 198.51.100.11 } tcp dport 5433 accept" in rules["db1"]
    assert "ip daddr { 198.51.100.21 } tcp dport 5433 accept" in rules["mcp1"]
    assert "ip saddr { 10.0.0.0/8 } tcp dport 443 accept" in rules["lb1"]
    assert "ip daddr { 192.0.2.54 } udp dport 53 accept" in rules["cache1"]
    assert "ip daddr { 192.0.2.123 } udp dport 123 accept" in rules["cache1"]
    assert "ip saddr { 192.0.2.99, 203.0.113.31 } tcp dport 9100 accept" in rules["cache1"]
    assert "ip daddr { 192.0.2.200, 198.51.100.21 } tcp dport 3128 accept" in rules["mcp1"]
    assert "ip daddr { 192.0.2.201 } udp dport 514 accept" in rules["mcp1"]


def test_nft_accepts_the_rules_of_every_host(tmp_path: Path) -> None:
    """In namespaces of its own, so that loading changes nothing of this machine.

    There is no /etc/protocols in them, as on a small Debian 12.
    """
    render(tmp_path)
    prefix = ["unshare", "--net", "--mount"]
    if os.getuid() != 0:
        prefix.append("--map-root-user")
    hide = "if [ -e /etc/protocols ]; then mount --bind /dev/null /etc/protocols; fi"

    for name in HOSTS:
        load = ["nft", "-f", str(tmp_path / f"{name}.nft")]
        twice = (
            f"{hide} && {' '.join(load)} && {' '.join(load)} && nft list table inet enterprise_mcp"
        )
        done = subprocess.run(
            [*prefix, "env", "PATH=/usr/sbin:/usr/bin:/bin", "sh", "-c", twice],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("policy drop;") == 3


def test_the_table_has_the_default_ports_of_the_roles() -> None:
    services = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__firewall_services"]
    defaults: dict[str, Any] = {}
    for path in ROOT.glob("roles/*/defaults/main.yml"):
        defaults |= yaml.safe_load(path.read_text())

    assert {row["port"]: row["default"] for row in services} == {
        row["port"]: defaults[row["port"]] for row in services
    }


@pytest.mark.parametrize(
    ("networks", "faults"),
    [
        (["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"], []),
        (
            ["10.0.0.0/33"],
            ["10.0.0.0/33 is no network. Write one as 192.0.2.0/24 or 2001:db8::/32"],
        ),
        (["vpn"], ["vpn is no network. Write one as 192.0.2.0/24 or 2001:db8::/32"]),
        (
            ["10.0.0.7/24"],
            ["10.0.0.7/24 has bits after its prefix. Write 10.0.0.0/24 for the whole network"],
        ),
        (
            ["10.0.0.0/8", "10.9.0.0/16"],
            ["10.0.0.0/8 and 10.9.0.0/16 overlap. Keep one of them"],
        ),
    ],
)
def test_faults_of_networks_are_named(networks: list[str], faults: list[str]) -> None:
    assert network_faults(networks) == faults


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({"to": ["a.test"], "port": 443}, ""),
        ({"to": ["10.0.0.0/8"], "port": "443", "protocol": "udp"}, ""),
        ({"to": ["10.0.0.1/8"], "port": 443}, "has bits after its prefix"),
        ({"to": [], "port": 443}, "must be a list with at least one entry"),
        ({"to": "a.test", "port": 443}, "must be a list with at least one entry"),
        ({"to": ["a.test"], "port": 0}, "must be a number from 1 to 65535"),
        ({"to": ["a.test"]}, "must be a number from 1 to 65535"),
        ({"to": ["a.test"], "port": 1, "protocol": "sctp"}, "must be tcp or udp"),
        ({"from": ["10.0.0.1"], "port": 1}, "must have the keys to, port and optionally protocol"),
        ("443", "must have the keys to, port and optionally protocol"),
    ],
)
def test_faults_of_rules_are_named(rule: Any, fault: str) -> None:
    faults = firewall_rule_faults([rule], "to")

    assert (faults == []) if not fault else (fault in faults[0])


def test_destinations_are_found_in_urls_and_places() -> None:
    configuration = {
        "public_url": "https://mcp.example.com",
        "counters": {"url": "rediss://mcp-server@cache1.example.com:6380/0"},
        "database": {"host": "DB1.example.com", "port": 5432},
        "policy": {"socket": "unix:///run/opa/opa.sock"},
        "identity": {
            "jwt": {"issuer": "https://mcp.example.com", "audience": "https://mcp.example.com/mcp"},
            "issuers": [{"issuer": "https://login.example.com/realms/a"}],
            "directory": {"servers": ["ldaps://ad1.example.com", "ldap://192.0.2.7:3389"]},
        },
        "receivers": [{"email_configs": [{"smarthost": "smtp.example.com:587"}]}],
        "text": "see https://[broken",
        "static_configs": [{"targets": ["192.0.2.8:9187"]}],
    }

    found = {
        (*rule["to"], rule["port"])
        for rule in destinations(configuration, "https://mcp.example.com")
    }

    assert found == {
        ("cache1.example.com", 6380),
        ("db1.example.com", 5432),
        ("login.example.com", 443),
        ("ad1.example.com", 636),
        ("192.0.2.7", 3389),
        ("smtp.example.com", 587),
        ("192.0.2.8", 9187),
    }


def test_the_servers_of_the_configuration_are_allowed(tmp_path: Path) -> None:
    """Of the settings, and of a kubeconfig among the credentials."""
    kubeconfig = "clusters:\n- cluster:\n    server: https://k8s.example.org:6443\n  name: a\n"
    variables = {
        "mcp_server_jwt_secret": "a" * 32,
        "mcp_server_credentials": {"kubeconfig": kubeconfig, "key": "https://no.example.org"},
        "mcp_server_settings": {
            "telemetry": {"otlp_endpoint": "https://otel.example.org:4318"},
            "tools": {"monitoring": {"grafana": {"url": "https://192.0.2.60:3000"}}},
        },
    }
    shown = {"ansible.builtin.debug": {"msg": "<{{ __mcp_server_destinations | to_json }}>"}}

    done = run_play(
        tmp_path,
        [role_of("mcp_server", "destinations"), shown],
        inventory=inventory(),
        hosts="mcp1",
        variables=variables,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = re.findall(r"<(.*)>", " ".join(done.stdout.split()))
    assert {(*rule["to"], rule["port"]) for rule in json.loads(found)} == {
        ("db1.example.com", 5432),
        ("cache1.example.com", 6379),
        ("mon1.example.com", 9090),
        ("mon1.example.com", 9093),
        ("k8s.example.org", 6443),
        ("otel.example.org", 4318),
        ("192.0.2.60", 3000),
    }


def check(folder: Path, connection: str, **variables: Any) -> str:
    """Run the preflight of one host as a controller with this SSH_CONNECTION; return the output.

    The run must fail when the output is not empty.
    """
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "printenv"
    program.write_text(f"#!/bin/sh\n[ -n '{connection}' ] && echo '{connection}'\n")
    program.chmod(0o755)
    done = run_play(
        folder,
        [role_of("firewall", "preflight")],
        inventory=inventory(**variables),
        hosts="lb1",
        path=programs,
    )
    return "" if done.returncode == 0 else " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "connection", ["203.0.113.130 40000 192.0.2.10 22", ""], ids=["inside", "not by SSH"]
)
def test_a_controller_that_stays_let_in_passes(tmp_path: Path, connection: str) -> None:
    assert check(tmp_path, connection) == ""


@pytest.mark.parametrize(
    ("connection", "variables", "said"),
    [
        (
            "203.0.113.7 40000 192.0.2.10 22",
            {},
            "from 203.0.113.7 to port 22, but the rules would allow SSH from 203.0.113.128/25",
        ),
        (
            "203.0.113.130 40000 192.0.2.10 2222",
            {},
            "to port 2222, but the rules would allow SSH from 203.0.113.128/25 to port 22 only",
        ),
    ],
)
def test_a_firewall_that_would_lock_out_its_controller_is_refused(
    tmp_path: Path, connection: str, variables: dict[str, Any], said: str
) -> None:
    told = check(tmp_path, connection, **variables)

    assert "would lock out this controller, so nothing was changed" in told
    assert said in told


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"firewall_admin_networks": ["203.0.113.128/25", "203.0.113.0/24"]},
            "firewall_admin_networks: 203.0.113.128/25 and 203.0.113.0/24 overlap",
        ),
        (
            {"firewall_admin_networks": ["vpn"]},
            "firewall_admin_networks: vpn is no network",
        ),
        (
            {"firewall_client_networks": ["10.0.0.1/8"]},
            "firewall_client_networks: 10.0.0.1/8 has bits after its prefix. Write 10.0.0.0/8",
        ),
        (
            {"firewall_allowed_in": [{"from": ["a.test"], "port": 1}]},
            "firewall_allowed_in: a.test is no network",
        ),
        ({"firewall_rollback_s": 3}, "firewall_rollback_s is 3. It must be 10 or more"),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, variables: dict[str, Any], said: str) -> None:
    told = check(tmp_path, "203.0.113.130 40000 192.0.2.10 22", **variables)

    assert said in told
    assert "The firewall of lb1 is unchanged" in told


class TestNames:
    """The program that resolves names for the rules."""

    PROGRAM = ROLE / "files/usr/local/lib/enterprise-mcp/firewall-names"

    def run(self, folder: Path, names: str, known: dict[str, set[str]], now: float) -> str:
        """Run the program with these names in DNS at a time; return the commands for nft."""
        program = runpy.run_path(str(self.PROGRAM))
        (folder / "names").write_text(f"# a comment\n{names}\n")
        scope = program["main"].__globals__
        scope["resolve"] = lambda name: known.get(name, set())
        scope["time"] = type("Clock", (), {"time": staticmethod(lambda: now)})
        scope["NFT"] = "/bin/false"  # the table is not loaded
        assert program["main"](str(folder / "names"), str(folder)) == 0
        return (folder / "addresses.nft").read_text()

    def test_addresses_of_both_families_are_written(self, tmp_path: Path) -> None:
        known = {"a.test": {"192.0.2.1", "2001:db8::1"}, "b.test": {"192.0.2.2"}}

        commands = self.run(tmp_path, "a.test tcp 443\nb.test udp 514", known, 0)

        assert commands == (
            "flush set inet enterprise_mcp resolved4\n"
            "add element inet enterprise_mcp resolved4"
            " { 192.0.2.1 . tcp . 443, 192.0.2.2 . udp . 514 }\n"
            "flush set inet enterprise_mcp resolved6\n"
            "add element inet enterprise_mcp resolved6 { 2001:db8::1 . tcp . 443 }\n"
        )

    def test_a_name_keeps_its_addresses_for_a_day(self, tmp_path: Path) -> None:
        first = self.run(tmp_path, "a.test tcp 443", {"a.test": {"192.0.2.1"}}, 0)
        gone = self.run(tmp_path, "a.test tcp 443", {}, 200_000)
        moved = self.run(tmp_path, "a.test tcp 443", {"a.test": {"192.0.2.2"}}, 80_000)
        later = self.run(tmp_path, "a.test tcp 443", {"a.test": {"192.0.2.2"}}, 90_000)

        assert gone == first
        assert "{ 192.0.2.1 . tcp . 443, 192.0.2.2 . tcp . 443 }" in moved
        assert "192.0.2.1" not in later

    def test_a_name_that_was_never_known_allows_nothing(self, tmp_path: Path) -> None:
        commands = self.run(tmp_path, "a.test tcp 443", {}, 0)

        assert "add element" not in commands
