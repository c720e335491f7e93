"""playbooks/lockdown.yml: only administrators are served, by every node that can be reached."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from anyio import to_thread

from tests.deploy.installation import Installation, Playbook

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]


def lockdown(installation: Installation, state: str) -> Playbook:
    return installation.play("playbooks/lockdown.yml", "-e", f"lockdown={state}")


@pytest.fixture
def lifted_afterwards(calm: Installation) -> Iterator[Installation]:
    yield calm
    lockdown(calm, "off").require()


async def answers(installation: Installation, role: str, calls: int = 12) -> Counter[str]:
    """Return how many calls through Nginx were answered, and how many were refused for which reason."""
    found: Counter[str] = Counter()
    for _ in range(calls):
        async with installation.http(installation.token(roles=(role,))) as http:
            answer = await http.post(
                "/tools/monitoring_query_metrics/execute", json={"query": "up"}
            )
        reasons = answer.json().get("error", {}).get("reasons", [])
        found.update([reason["code"] for reason in reasons] or [str(answer.status_code)])
    return found


async def test_only_administrators_are_served_until_it_is_lifted(
    lifted_afterwards: Installation, record_property: Callable[[str, object], None]
) -> None:
    installation = lifted_afterwards
    began = time.monotonic()

    said = await to_thread.run_sync(lockdown, installation, "on")

    record_property("seconds until every node is locked down", f"{time.monotonic() - began:.0f}")
    assert "LOCKED DOWN: 3 of 3 nodes" in " ".join(said.require().output.split())
    assert await answers(installation, "mcp:viewer") == {"locked_down": 12}
    assert await answers(installation, "mcp:admin") == {"200": 12}

    lockdown(installation, "off").require()

    assert await answers(installation, "mcp:viewer") == {"200": 12}


async def test_a_node_that_fails_is_named_and_does_not_open_the_others(
    lifted_afterwards: Installation,
) -> None:
    installation = lifted_afterwards
    first = installation.members("mcp_servers")[0]

    with first.stopped("opa.service"):
        said = await to_thread.run_sync(lockdown, installation, "on")

        assert said.rc != 0
        output = " ".join(said.output.split())
        assert "Locked down: mcp2, mcp3. Not locked down:" in output
        assert f"{first.name}: Read the current policy revision of this node" in output
        assert set(await answers(installation, "mcp:viewer")) == {"locked_down"}

    # The other playbooks keep it, so that the node joins the others.
    installation.play("playbooks/publish_policies.yml").require()
    assert await answers(installation, "mcp:viewer") == {"locked_down": 12}


def test_a_word_that_is_neither_on_nor_off_is_refused(installation: Installation) -> None:
    said = lockdown(installation, "maybe")

    assert said.rc != 0
    assert 'lockdown is "maybe". Accepted are -e lockdown=on and -e lockdown=off.' in said.output
