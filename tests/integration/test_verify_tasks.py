"""The tasks by which playbooks/verify.yml makes real calls: on a node, and at the public address.

Against a node of these tests without nginx before it; tests/deploy runs them on a whole installation.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.nodes import AUDIENCE, ISSUER, JWT_SECRET, McpNode
from tests.integration.servers import Authority, RedisServer
from tests.plays import LOCAL, role_of, run_play

_GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")

Verify = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def verify(node: McpNode, authority: Authority, tmp_path: Path) -> Verify:
    """Run a task file of roles/mcp_server with settings that differ."""
    settings: dict[str, object] = {
        **LOCAL,
        "mcp_server_public_url": node.url,
        "mcp_server_settings": {"identity": {"jwt": {"issuer": ISSUER, "audience": AUDIENCE}}},
        "mcp_server_jwt_secret": JWT_SECRET,
        "mcp_server_ready_timeout_s": 20,
        "pki_ca_certificate_file": str(authority.ca),
        # The node of the tests runs from .venv instead of /opt.
        "__mcp_server_current": str(Path(sys.executable).parents[1]),
        "__mcp_server_config": str(node.config),
    }

    def run(tasks: str, **different: object) -> subprocess.CompletedProcess[str]:
        return run_play(
            tmp_path,
            [role_of("mcp_server", tasks)],
            inventory={"all": {"children": {name: {"hosts": {"all1": None}} for name in _GROUPS}}},
            variables={**settings, **different},
        )

    return run


def use_up(redis_server: RedisServer, window: str, limit: int) -> None:
    """Fill a window as that many calls of this moment do."""
    calls = "for n = 1, ARGV[1] do redis.call('ZADD', KEYS[1], ARGV[2], 'call:' .. n) end"
    redis_server.cli(
        "eval", calls, "1", f"mcp:window:{window}", str(limit), str(time.time_ns() // 1000)
    )


@pytest.mark.parametrize("tasks", ["verify", "verify_call"])
def test_a_working_installation_is_called_and_changes_nothing(verify: Verify, tasks: str) -> None:
    result = verify(tasks)

    assert result.returncode == 0, result.stdout
    assert "changed=0" in result.stdout
    assert "not reach" not in result.stdout
    assert JWT_SECRET not in result.stdout


@pytest.mark.parametrize("tasks", ["verify", "verify_call"])
def test_a_call_that_is_refused_fails_and_says_what_to_do(verify: Verify, tasks: str) -> None:
    result = verify(tasks, mcp_server_verify_role="mcp:nobody")

    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert "as mcp:nobody" in said
    assert "set mcp_server_verify_role" in said
    assert "Bearer" not in result.stdout


@pytest.mark.parametrize(
    ("tasks", "tool"),
    [("verify", "cmdb_query_assets"), ("verify_call", "monitoring_query_metrics")],
)
def test_a_limit_that_people_have_used_up_fails_no_verification(
    verify: Verify, redis_server: RedisServer, tasks: str, tool: str
) -> None:
    use_up(redis_server, "global", 1000)

    result = verify(tasks)

    said = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stdout
    assert "OPA decided and Redis counted" in said
    assert f"did not reach {tool}. To verify it too" in said
    assert "the limit of 1000 calls in 3600 seconds is used up (global)" in said
    assert "set mcp_server_verify_role" not in said


def test_a_role_that_no_token_can_name_is_told(verify: Verify) -> None:
    result = verify("verify_call", mcp_server_verify_role="mcp:viewer mcp:admin")

    assert result.returncode != 0
    assert "'mcp:viewer mcp:admin' is no name of a role" in result.stdout
    assert JWT_SECRET not in result.stdout


@pytest.mark.parametrize("tasks", ["verify", "verify_call"])
def test_a_node_that_has_another_key_than_the_inventory_fails(verify: Verify, tasks: str) -> None:
    result = verify(tasks, mcp_server_jwt_secret="x" * 32)

    assert result.returncode != 0
    assert {"verify": "not usable", "verify_call": "status 401"}[tasks] in result.stdout


def test_a_tool_that_fails_at_its_backend_fails_the_verification(verify: Verify) -> None:
    query = {"name": "monitoring_query_metrics", "arguments": {"query": "up{"}}

    result = verify("verify_call", __mcp_server_verify_tool=query)

    assert result.returncode != 0
    assert "parse error" in result.stdout
