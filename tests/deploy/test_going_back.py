"""Changes that turn out bad: the installation goes back by itself, and nobody notices."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from anyio import to_thread

from tests.deploy.installation import Installation
from tests.deploy.test_changes import PUBLISH, bundles, revision, wait_until_all_decide_by
from tests.deploy.traffic import Traffic

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]


async def test_a_node_that_does_not_become_ready_goes_back_and_the_others_are_left_alone(
    calm: Installation,
) -> None:
    nodes = calm.members("mcp_servers")
    before = [(node.main_pid("mcp-server.service"), _runs(calm, node)) for node in nodes]
    # A setting that the configuration's check accepts, and with which nothing can be decided in time;
    # and one that changes the unit.
    change = {
        "mcp_server_settings": {"policy": {"timeout_s": 0.0001}},
        "mcp_server_ready_timeout_s": 10,
        "mcp_server_open_files_max": 12345,
    }

    async with Traffic(calm, per_second=5) as traffic:
        run = await to_thread.run_sync(
            lambda: calm.play("playbooks/mcp_server.yml", "-e", json.dumps(change))
        )
        await traffic.more(20)

    after = [(node.main_pid("mcp-server.service"), _runs(calm, node)) for node in nodes]
    assert run.rc != 0
    assert "did not become ready" in run.output
    assert traffic.faults == []
    assert [what for _, what in after] == [what for _, what in before]
    assert [pid for pid, _ in after[1:]] == [pid for pid, _ in before[1:]]
    assert calm.node_status(nodes[0])["ready"] is True


def test_a_publication_that_decides_otherwise_than_expected_is_taken_back(
    installation: Installation,
) -> None:
    change = {
        "opa_policy_data_overrides": {"limits": {"user": {"limit": 7, "window_s": 3600}}},
        "opa_canary_decisions": [
            {"name": "nobody may do anything", "input": {"version": 2}, "effect": "allow"}
        ],
    }
    before_bundles, before_revision = bundles(installation), revision(installation)

    run = installation.play(PUBLISH, "-e", json.dumps(change))

    assert run.rc != 0
    assert "nobody may do anything: allow" in run.output
    assert bundles(installation) == before_bundles
    wait_until_all_decide_by(installation, before_revision)


def test_a_publication_that_one_node_does_not_follow_is_taken_back_everywhere(
    installation: Installation,
) -> None:
    change = {
        "opa_policy_data_overrides": {"limits": {"user": {"limit": 8, "window_s": 3600}}},
        "opa_publish_timeout_seconds": 5,
    }
    before_bundles, before_revision = bundles(installation), revision(installation)
    nodes = installation.members("mcp_servers")
    units = "opa-bundle.socket opa-bundle.service"

    nodes[1].run(f"systemctl stop {units}")
    try:
        run = installation.play(PUBLISH, "-e", json.dumps(change))
        after_bundles = bundles(installation)
    finally:
        nodes[1].run("systemctl start opa-bundle.socket")

    assert run.rc != 0
    assert re.search(rf"{nodes[1].name}: .*did not answer as wanted within 5 s", run.output)
    assert after_bundles == before_bundles
    wait_until_all_decide_by(installation, before_revision)


async def test_an_opa_that_does_not_start_goes_back_and_the_others_are_left_alone(
    calm: Installation,
) -> None:
    nodes = calm.members("mcp_servers")
    before = [(node.main_pid("opa.service"), _decides(calm, node)) for node in nodes]

    async with Traffic(calm, per_second=5) as traffic:
        # A port that OPA has no right to.
        run = await to_thread.run_sync(
            lambda: calm.play("playbooks/policies.yml", "-e", "opa_diagnostic_port=22")
        )
        await traffic.more(20)

    after = [(node.main_pid("opa.service"), _decides(calm, node)) for node in nodes]
    assert run.rc != 0
    assert "bind: permission denied" in run.output
    assert "It runs as before. Restored: /etc/systemd/system/opa.service." in run.output
    assert f"an earlier node was rolled back: {nodes[0].name}" in run.output
    assert traffic.faults == []
    assert [what for _, what in after] == [what for _, what in before]
    assert after[0][0] != before[0][0]
    assert [pid for pid, _ in after[1:]] == [pid for pid, _ in before[1:]]


def _decides(installation: Installation, node: Any) -> tuple[str, ...]:
    """Return what a node decides with: unit and settings, the unit in use, copies left behind."""
    assert node in installation.members("mcp_servers")
    return (
        node.run("sha256sum /etc/systemd/system/opa.service /etc/opa/config.yaml"),
        node.run("systemctl show -P NeedDaemonReload opa.service"),
        # As systemd has it, which is what a crashed OPA is started with.
        re.sub(r" ; (start|stop)_time=.*", "", node.run("systemctl show -P ExecStart opa.service")),
        node.run("find /etc/opa /etc/systemd/system /usr/local/bin -name '*~'"),
    )


def _runs(installation: Installation, node: Any) -> tuple[str, ...]:
    """Return what a node runs: release, configuration, unit, limit in force, credentials it has."""
    assert node in installation.members("mcp_servers")
    return (
        node.run("readlink /opt/mcp_server/current"),
        node.run("sha256sum /etc/mcp_server/config.yaml"),
        node.run("sha256sum /etc/systemd/system/mcp-server.service"),
        node.run("systemctl show -P LimitNOFILE -P NeedDaemonReload mcp-server.service"),
        node.run("cd /etc/mcp_server && find credentials* -type f | sort | xargs sha256sum"),
    )
