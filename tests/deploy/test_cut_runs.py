"""Runs that are killed after they wrote a file and before a service read it: the next tells it.

That every file which a role writes is compared is in tests/playbooks/test_written_files.py.
"""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.deploy.installation import Installation
from tests.deploy.snapshots import Disposable
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


def test_the_next_run_serves_the_renewed_certificate(installation: Installation) -> None:
    (gateway, *_) = installation.members("loadbalancers")
    served = _SERVED.format(address=gateway.address)
    before = gateway.run(served)
    # A certificate that is not there is issued again.
    gateway.run(f"rm {_CERTIFICATE}")

    kill_at(installation, "configure | Write the included files", "playbooks/nginx.yml")
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


def test_the_next_run_restarts_opa(installation: Installation, disposable: Disposable) -> None:
    (node, *_) = installation.members("mcp_servers")
    disposable(node)
    change = ("--limit", f"{node.name},localhost", "-e", "opa_bundle_poll_seconds=2")
    before = node.main_pid("opa.service")

    kill_at(
        installation,
        "configure | Write the policy of the socket",
        "playbooks/policies.yml",
        *change,
    )
    after_the_cut = node.main_pid("opa.service")
    installation.play("playbooks/policies.yml", *change).require()
    after_the_next = node.main_pid("opa.service")

    assert after_the_cut == before != after_the_next
