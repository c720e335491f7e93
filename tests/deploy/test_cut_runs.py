"""Runs that are killed after they wrote a file and before a service read it: the next tells it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.deploy.installation import Host, Installation
from tests.deploy.test_prometheus import configuration
from tests.plays import ROOT, ansible_environment

pytestmark = pytest.mark.cluster

_SERVED = "echo | openssl s_client -connect {address}:443 2>/dev/null | openssl x509 -noout -serial"
_WRITTEN = "openssl x509 -noout -serial -in /etc/enterprise-mcp/tls/nginx/cert.pem"


def kill_at(installation: Installation, task: str, playbook: str, *arguments: str) -> None:
    """Run a playbook and kill it with all its processes when the first result of a task is there."""
    with subprocess.Popen(
        installation.play_command(playbook, *arguments),
        cwd=ROOT,
        env=ansible_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        seen = []
        for line in run.stdout:
            seen.append(line)
            if line.startswith("TASK") and task in line:
                os.killpg(run.pid, signal.SIGKILL)
                return
    pytest.fail(f"{task} was not reached:\n{''.join(seen)}")


@dataclass(frozen=True)
class Cut:
    """A setting, the task after the one that writes it, and what tells that it is in force."""

    playbook: str
    group: str
    change: dict[str, object]
    task: str
    in_force: Callable[[Host], str]
    wanted: str

    @property
    def arguments(self) -> tuple[str, str]:
        return ("-e", json.dumps(self.change))


CUTS = {
    "postgres": Cut(
        "playbooks/postgres.yml",
        "postgres",
        {"postgres_work_mem": "9MB"},
        "configure | Say who may connect",
        lambda host: host.run(
            "cd / && psql -h /run/postgresql -U postgres -Atc 'show work_mem'"
        ).strip(),
        "9MB",
    ),
    "redis": Cut(
        "playbooks/redis.yml",
        "redis",
        {"redis_maxmemory": "257mb"},
        "configure | Write the settings",
        lambda host: host.run("/usr/local/sbin/redis-admin CONFIG GET maxmemory").split()[-1],
        str(257 << 20),
    ),
    "prometheus": Cut(
        "playbooks/prometheus.yml",
        "monitoring",
        {"prometheus_scrape_interval_s": 16},
        "configure | Write whom Alertmanager tells",
        lambda host: re.findall(r"scrape_interval: (\w+)", configuration(host))[0],
        "16s",
    ),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_the_next_run_brings_a_setting_into_force(installation: Installation, cut: Cut) -> None:
    (host, *_) = installation.members(cut.group)
    before = cut.in_force(host)
    try:
        kill_at(installation, cut.task, cut.playbook, *cut.arguments)
        after_the_cut = cut.in_force(host)
        installation.play(cut.playbook, *cut.arguments).require()
        after_the_next = cut.in_force(host)
    finally:
        installation.play(cut.playbook).require()

    assert (after_the_cut, after_the_next) == (before, cut.wanted)
    assert cut.in_force(host) == before


def test_the_next_run_serves_the_renewed_certificate(installation: Installation) -> None:
    (gateway, *_) = installation.members("loadbalancers")
    served = _SERVED.format(address=gateway.address)
    before = gateway.run(served)
    renew = ("-e", json.dumps({"pki_leaf_valid_days": 400, "pki_leaf_renew_days": 380}))

    kill_at(installation, "configure | Write the parts", "playbooks/nginx.yml", *renew)
    written, still_served = gateway.run(_WRITTEN), gateway.run(served)
    installation.play("playbooks/nginx.yml").require()

    assert written != still_served == before
    assert gateway.run(served) == written


def test_the_next_run_reloads_nginx_when_it_refused_before(installation: Installation) -> None:
    (gateway, *_) = installation.members("loadbalancers")
    stray = "/etc/nginx/conf.d/99-stray.conf"
    served = _SERVED.format(address=gateway.address)
    before = gateway.run(served)
    renew = ("-e", json.dumps({"pki_leaf_valid_days": 450, "pki_leaf_renew_days": 430}))

    gateway.run(f"echo 'server {{ listen 127.0.0.1:1 ssl; ssl_certificate /none; }}' >{stray}")
    try:
        failed = installation.play("playbooks/nginx.yml", *renew)
        still_served = gateway.run(served)
    finally:
        gateway.run(f"rm {stray}")
    installation.play("playbooks/nginx.yml", *renew).require()

    assert failed.rc != 0
    assert still_served == before
    assert gateway.run(served) == gateway.run(_WRITTEN) != before


def test_the_next_run_restarts_opa(installation: Installation) -> None:
    nodes = installation.members("mcp_servers")
    before = {node.name: node.main_pid("opa.service") for node in nodes}
    change = ("-e", "opa_bundle_poll_seconds=2")

    kill_at(installation, "configure | Write the rules", "playbooks/policies.yml", *change)
    after_the_cut = {node.name: node.main_pid("opa.service") for node in nodes}
    installation.play("playbooks/policies.yml", *change).require()
    after_the_next = {node.name: node.main_pid("opa.service") for node in nodes}
    installation.play("playbooks/policies.yml").require()

    assert after_the_cut == before
    assert all(after_the_next[name] != before[name] for name in before)
