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
_CERTIFICATE = "/etc/enterprise-mcp/tls/nginx/cert.pem"
_WRITTEN = f"openssl x509 -noout -serial -in {_CERTIFICATE}"


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

    service: str
    group: str
    change: dict[str, object]
    task: str
    in_force: Callable[[Host], str]
    wanted: str

    @property
    def playbook(self) -> str:
        return f"playbooks/{self.service}.yml"

    @property
    def only(self) -> tuple[str, ...]:
        """The arguments for the service alone: no exporters, and no hosts that it is not on."""
        return ("--limit", f"{self.group},localhost", "--tags", self.service)

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*self.only, "-e", json.dumps(self.change))


CUTS = {
    "postgres": Cut(
        "postgres",
        "postgres",
        {"postgres_work_mem": "9MB"},
        "configure | Say who may connect",
        lambda host: host.run(
            "cd / && psql -h /run/postgresql -U postgres -Atc 'show work_mem'"
        ).strip(),
        "9MB",
    ),
    "redis": Cut(
        "redis",
        "redis",
        {"redis_maxmemory": "257mb"},
        "configure | Write the settings",
        lambda host: host.run("/usr/local/sbin/redis-admin CONFIG GET maxmemory").split()[-1],
        str(257 << 20),
    ),
    "prometheus": Cut(
        "prometheus",
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
        installation.play(cut.playbook, *cut.only).require()

    assert (after_the_cut, after_the_next) == (before, cut.wanted)
    assert cut.in_force(host) == before


def test_the_next_run_serves_the_renewed_certificate(installation: Installation) -> None:
    (gateway, *_) = installation.members("loadbalancers")
    served = _SERVED.format(address=gateway.address)
    before = gateway.run(served)
    # A certificate that is not there is issued again.
    gateway.run(f"rm {_CERTIFICATE}")

    kill_at(installation, "configure | Write the parts", "playbooks/nginx.yml")
    written, still_served = gateway.run(_WRITTEN), gateway.run(served)
    installation.play("playbooks/nginx.yml").require()

    assert written != still_served == before
    assert gateway.run(served) == written


def test_the_next_run_reloads_nginx_when_it_refused_before(installation: Installation) -> None:
    (gateway, *_) = installation.members("loadbalancers")
    stray = "/etc/nginx/conf.d/99-stray.conf"
    served = _SERVED.format(address=gateway.address)
    before = gateway.run(served)
    gateway.run(f"rm {_CERTIFICATE}")
    gateway.run(f"echo 'server {{ listen 127.0.0.1:1 ssl; ssl_certificate /none; }}' >{stray}")
    try:
        failed = installation.play("playbooks/nginx.yml")
        still_served = gateway.run(served)
    finally:
        gateway.run(f"rm {stray}")
    installation.play("playbooks/nginx.yml").require()

    assert failed.rc != 0
    assert still_served == before
    assert gateway.run(served) == gateway.run(_WRITTEN) != before


def test_the_next_run_restarts_opa(installation: Installation) -> None:
    (node, *_) = installation.members("mcp_servers")
    only = ("--limit", f"{node.name},localhost")
    change = (*only, "-e", "opa_bundle_poll_seconds=2")
    before = node.main_pid("opa.service")

    kill_at(installation, "configure | Write the rules", "playbooks/policies.yml", *change)
    after_the_cut = node.main_pid("opa.service")
    installation.play("playbooks/policies.yml", *change).require()
    after_the_next = node.main_pid("opa.service")
    installation.play("playbooks/policies.yml", *only).require()

    assert after_the_cut == before != after_the_next
