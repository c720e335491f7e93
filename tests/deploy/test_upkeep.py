"""What every host does by itself: it moves old logs away, and installs security updates."""

from __future__ import annotations

import re

from testinfra.host import Host as Shell

testinfra_hosts = ["ansible://all"]


def test_logs_are_rotated_every_day(host: Shell) -> None:
    assert host.run("systemctl is-active logrotate.timer").stdout.strip() == "active"


def test_every_log_file_is_rotated(host: Shell) -> None:
    written = host.run("find /var/log -name '*.log' -type f").stdout.split()
    looked_at = host.run("logrotate --debug /etc/logrotate.conf")
    considered = re.findall(r"considering log (\S+)", looked_at.stdout + looked_at.stderr)

    assert looked_at.rc == 0
    assert [path for path in written if path not in considered] == []


def test_security_updates_leave_the_stores_alone(host: Shell) -> None:
    tried = host.run("unattended-upgrade --dry-run --debug")
    excluded = re.search(r"Initial blacklist ?: (.*)", tried.stdout + tried.stderr)

    assert excluded is not None, tried.stdout + tried.stderr
    assert excluded[1].split() == ["postgresql-[0-9]+$", "redis-(server|tools)$"]
