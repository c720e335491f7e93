"""Services: enabled, running, as their own account, and locked in."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host as Shell

from tests.deploy.installation import Host, Installation

testinfra_hosts = ["ansible://all"]

# By group: unit, account of its main process, highest exposure of `systemd-analyze security` (0 to 10).
EVERY_HOST = [("prometheus-node-exporter.service", "prometheus", 2.5)]
BY_GROUP = {
    "loadbalancers": [("nginx.service", "root", 2.6)],
    "mcp_servers": [("mcp-server.service", "mcp-server", 1.2), ("opa.service", "opa", 1.5)],
    "postgres": [("postgresql@{version}-main.service", "postgres", 3.0)],
    "redis": [("redis-server.service", "redis", 2.5)],
    "monitoring": [
        ("prometheus.service", "prometheus", 2.5),
        ("prometheus-alertmanager.service", "prometheus", 2.5),
    ],
}
# Units that run now and then: by group, and the highest exposure.
HELPERS = {
    "all": [("enterprise-mcp-certificate-metrics.service", 1.0)],
    "mcp_servers": [("opa-bundle.service", 1.0)],
    "postgres": [("mcp-audit-maintenance.service", 1.0)],
}
TIMERS = {
    "postgres": ["mcp-audit-maintenance.timer"],
}


def _units(host: Shell, me: Host, installation: Installation) -> list[tuple[str, str, float]]:
    units = [*EVERY_HOST]
    for group, rows in BY_GROUP.items():
        if me.name in installation.groups[group]:
            units += rows
    version = host.run("ls /etc/postgresql").stdout.strip()
    return [(unit.format(version=version), user, most) for unit, user, most in units]


def test_every_service_runs_and_starts_with_the_host(
    host: Shell, me: Host, installation: Installation
) -> None:
    for unit, user, _ in _units(host, me, installation):
        assert host.service(unit).is_running, unit
        assert host.service(unit).is_enabled, unit
        pid = host.check_output(f"systemctl show -P MainPID {unit}")
        assert host.check_output(f"ps -o user:32= -p {pid}").strip() == user, unit


def test_every_timer_waits_for_its_time(host: Shell, me: Host, installation: Installation) -> None:
    timers = ["enterprise-mcp-certificate-metrics.timer"]
    for group, names in TIMERS.items():
        if me.name in installation.groups[group]:
            timers += names

    for timer in timers:
        assert host.service(timer).is_enabled, timer
        assert host.check_output(f"systemctl is-active {timer}") == "active", timer
        assert host.check_output(f"systemctl show -P NextElapseUSecRealtime {timer}"), timer


def test_no_unit_has_failed(host: Shell) -> None:
    failed = json.loads(host.check_output("systemctl list-units --failed --output=json"))

    assert [unit["unit"] for unit in failed] == []


def test_every_service_is_locked_in(host: Shell, me: Host, installation: Installation) -> None:
    exposures = {}
    ceilings = [(unit, most) for unit, _, most in _units(host, me, installation)]
    for group, rows in HELPERS.items():
        if me.name in installation.groups[group]:
            ceilings += rows
    for unit, most in ceilings:
        output = host.run(f"systemd-analyze security --no-pager {unit}").stdout
        exposure = float(output.rsplit("level for", 1)[1].split(":", 1)[1].split()[0])
        exposures[unit] = (exposure, most)

    assert {unit: pair for unit, pair in exposures.items() if pair[0] > pair[1]} == {}


def test_every_service_is_started_again_however_often_it_fails(
    host: Shell, me: Host, installation: Installation
) -> None:
    for unit, _, _ in _units(host, me, installation):
        shown = host.check_output(f"systemctl show -p Restart,StartLimitIntervalUSec {unit}")
        properties = dict(line.split("=", 1) for line in shown.splitlines())
        assert properties["StartLimitIntervalUSec"] == "0", unit
        assert properties["Restart"] in ("always", "on-failure"), unit


def test_no_unit_has_been_restarted_by_a_fault(
    host: Shell, me: Host, installation: Installation
) -> None:
    for unit, _, _ in _units(host, me, installation):
        assert host.check_output(f"systemctl show -P NRestarts {unit}") == "0", unit


@pytest.mark.parametrize("directory", ["/etc/enterprise-mcp", "/etc/mcp_server", "/opt/mcp_server"])
def test_nobody_but_root_can_write_what_runs(host: Shell, directory: str) -> None:
    if not host.file(directory).exists:
        return
    writable = host.check_output(
        f"find {directory} \\( ! -user root -o -perm /022 \\) ! -type l -print"
    )

    assert writable == ""
