"""Policies and settings that change under an installation that is being used."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio import to_thread
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.deploy.installation import PROBE, Installation, at_once, eventually
from tests.deploy.snapshots import Disposable
from tests.deploy.traffic import Traffic
from tests.integration.nodes import LegacyClient
from tests.plays import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]

PUBLISH = "playbooks/publish_policies.yml"
LIMITED, UNAVAILABLE = -32011, -32012
UNITS = ("mcp-server.service", "opa.service")


def pids(installation: Installation) -> dict[tuple[str, str], int]:
    """Return the main processes of the units that decide and serve."""
    return {
        (host.name, unit): host.main_pid(unit)
        for host in installation.members("mcp_servers")
        for unit in UNITS
    }


def revision(installation: Installation) -> str:
    """Return the policy revision that the nodes say they decide by."""
    nodes = installation.members("mcp_servers")
    (revision,) = {node["policy_revision"] for node in at_once(installation.node_status, nodes)}
    return str(revision)


def wait_until_all_decide_by(installation: Installation, revision: str) -> None:
    """Wait until every node says so, which it does a second after OPA has them at the latest."""
    probe = f"{PROBE} --wait 30 --revision {revision}"
    at_once(lambda node: node.run(probe), installation.members("mcp_servers"))


def publish(installation: Installation, *arguments: str) -> str:
    """Publish policies and return their revision, by which all nodes decide then."""
    run = installation.play(PUBLISH, *arguments).require()
    # Long lines are broken in results.
    (revision,) = set(re.findall(r"nodes\s+use\s+the\s+policies\s+(\S+):", run.output))
    wait_until_all_decide_by(installation, revision)
    return str(revision)


def bundles(installation: Installation) -> set[str]:
    """Return the checksums of the nodes' bundles."""
    nodes = installation.members("mcp_servers")
    return {node.run("sha256sum /var/lib/opa/bundle.tar.gz") for node in nodes}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A copy of the policies, to be changed."""
    return Path(shutil.copytree(ROOT / "policies", tmp_path / "policies"))


def publish_from(policies: Path) -> tuple[str, ...]:
    """Return the arguments that publish a changed copy of the policies."""
    return ("-e", json.dumps({"opa_policies_dir": str(policies)}))


def another_key() -> tuple[str, ...]:
    """Return the arguments that sign policies by a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return (
        "-e",
        json.dumps(
            {
                "opa_bundle_signing_key": private.decode(),
                "opa_bundle_verification_key": public.decode(),
            }
        ),
    )


def code(answer: dict[str, Any]) -> int | None:
    """Return the code of an error, None for a result."""
    return answer["error"]["code"] if "error" in answer else None


class TestPolicyData:
    async def test_an_edited_limit_holds_on_all_nodes_at_once(
        self, calm: Installation, disposable: Disposable, policies: Path
    ) -> None:
        """First an edited number, published under traffic; then 200 calls over all nodes."""
        path = policies / "config/limits/data.yaml"
        data = yaml.safe_load(path.read_text())
        data["tool"]["monitoring:query_metrics"] = {
            "limit": 10,
            "window_s": 3600,
            "per": "everyone",
        }
        path.write_text(yaml.safe_dump(data))
        disposable(*calm.members("mcp_servers"))
        before_pids, before = pids(calm), revision(calm)

        async with Traffic(calm) as traffic:
            now_by = await to_thread.run_sync(lambda: publish(calm, *publish_from(policies)))
            await traffic.more(20)

        assert traffic.faults == []
        assert revision(calm) == now_by != before
        assert pids(calm) == before_pids

        calm.forget_counts()
        tokens = [calm.token(f"crowd-{number}-{time.time_ns()}") for number in range(40)]
        async with calm.http() as http:

            async def call(number: int) -> dict[str, Any]:
                return await LegacyClient(
                    _Bearer(http, tokens[number % len(tokens)])  # type: ignore[arg-type]
                ).call("monitoring_query_metrics", {"query": "up"})

            answers = await asyncio.gather(*(call(number) for number in range(200)))
            # A machine that is busy answers some with "not made, try again": they do try again.
            for number, answer in enumerate(answers):
                if code(answer) == UNAVAILABLE:
                    answers[number] = await eventually(
                        partial(call, number), lambda again: code(again) != UNAVAILABLE
                    )

        limited = [answer["error"] for answer in answers if code(answer) == LIMITED]
        assert sum("result" in answer for answer in answers) == 10
        assert len(limited) == 190
        assert all(error["data"]["retry_after_ms"] > 0 for error in limited)

    def test_a_syntax_error_is_named_and_nothing_is_shipped(
        self, installation: Installation, policies: Path
    ) -> None:
        path = policies / "mcp/network/network.rego"
        path.write_text(path.read_text() + "\nallowed if ]\n")
        line = path.read_text().count("\n")
        before = bundles(installation)

        run = installation.play(PUBLISH, *publish_from(policies))

        assert run.rc != 0
        assert f"policies/mcp/network/network.rego:{line}" in run.output
        assert "rego_parse_error" in run.output
        assert bundles(installation) == before


class TestSettings:
    async def test_a_changed_setting_rolls_node_by_node_and_nobody_notices(
        self, calm: Installation, disposable: Disposable
    ) -> None:
        nodes = calm.members("mcp_servers")
        disposable(*nodes)
        before = {node.name: node.main_pid("mcp-server.service") for node in nodes}
        change = ("-e", json.dumps({"mcp_server_settings": {"log": {"level": "WARNING"}}}))

        async with Traffic(calm, per_second=5) as traffic:
            await to_thread.run_sync(
                lambda: calm.play("site.yml", "--tags", "mcp_server", *change).require()
            )
            await traffic.more(20)

        changed = {node.name: node.main_pid("mcp-server.service") for node in nodes}
        level = {node.run("grep level: /etc/mcp_server/config.yaml").split()[-1] for node in nodes}
        assert traffic.faults == []
        assert level == {"WARNING"}
        assert all(changed[name] != before[name] for name in before)

    async def test_opa_takes_a_new_key_node_by_node_and_nobody_notices(
        self, calm: Installation, disposable: Disposable
    ) -> None:
        before, decided_by = bundles(calm), revision(calm)
        nodes = calm.members("mcp_servers")
        disposable(*nodes)
        restarted = {node.name: node.main_pid("opa.service") for node in nodes}

        async with Traffic(calm, per_second=5) as traffic:
            await to_thread.run_sync(
                lambda: calm.play("playbooks/policies.yml", *another_key()).require()
            )
            await traffic.more(20)

        changed = bundles(calm)
        now = {node.name: node.main_pid("opa.service") for node in nodes}
        assert traffic.faults == []
        assert all(now[name] != restarted[name] for name in restarted)
        assert len(changed) == 1
        assert changed.isdisjoint(before)
        assert revision(calm) == decided_by

    def test_a_new_key_with_policies_that_do_not_pass_changes_nothing(
        self, calm: Installation, policies: Path
    ) -> None:
        path = policies / "mcp/network/network.rego"
        path.write_text(path.read_text() + "\nallowed if ]\n")
        settings = "sha256sum /etc/opa/config.yaml"
        nodes = calm.members("mcp_servers")
        before = (pids(calm), bundles(calm), [node.run(settings) for node in nodes])

        run = calm.play("playbooks/policies.yml", *another_key(), *publish_from(policies))

        assert run.rc != 0
        assert "rego_parse_error" in run.output
        assert (pids(calm), bundles(calm), [node.run(settings) for node in nodes]) == before

    def test_a_new_key_goes_back_where_a_node_does_not_decide_as_expected(
        self, calm: Installation, controller: None
    ) -> None:
        nodes = calm.members("mcp_servers")
        settings = "sha256sum /etc/opa/config.yaml"
        wrong = {"name": "nobody may do anything", "input": {"version": 2}, "effect": "allow"}
        before = (bundles(calm), [node.run(settings) for node in nodes])
        others = [node.main_pid("opa.service") for node in nodes[1:]]

        run = calm.play(
            *("playbooks/policies.yml", *another_key()),
            *("-e", json.dumps({"opa_canary_decisions": [wrong]})),
        )
        after = (bundles(calm), [node.run(settings) for node in nodes])
        untouched = [node.main_pid("opa.service") for node in nodes[1:]]

        assert run.rc != 0
        assert "nobody may do anything: allow" in run.output
        assert after == before
        assert untouched == others

    def test_postgresql_moves_to_another_port(
        self, calm: Installation, disposable: Disposable
    ) -> None:
        (database,) = calm.members("postgres")
        disposable(database)

        calm.play("playbooks/postgres.yml", "-e", "postgres_port=5433").require()

        assert database.address in database.run("ss -Hltn sport = 5433")
        assert database.run("ss -Hltn sport = 5432") == ""

    @pytest.mark.parametrize("tag", ["configure", "service"])
    def test_one_step_can_be_checked_alone(self, installation: Installation, tag: str) -> None:
        (node, *_) = installation.members("mcp_servers")

        # The last argument of the command is the playbook that is named first.
        run = installation.play(
            "playbooks/mcp_server.yml",
            *("--limit", f"{node.name},localhost", "--tags", tag, "--check", "--diff"),
            "playbooks/policies.yml",
        ).require()

        assert set(re.findall(r"changed=(\d+)", run.output)) == {"0"}


class _Bearer:
    """A client that puts one user's token on the calls of a shared client."""

    def __init__(self, http: Any, token: str) -> None:
        self._http = http
        self._token = token

    async def post(self, url: str, *, headers: dict[str, str], **content: Any) -> Any:
        headers = {**headers, "Authorization": f"Bearer {self._token}"}
        return await self._http.post(url, headers=headers, **content)
