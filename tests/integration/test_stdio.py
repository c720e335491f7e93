"""`mcpctl stdio` as roles/mcp_server calls it to see whether a node does its work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.nodes import McpNode

_CALL_TOOL = Path(__file__).resolve().parents[2] / "roles/mcp_server/files/call_tool.py"
_DEADLINE_S = 90


def call(
    node: McpNode, token: str, tool: str, **arguments: Any
) -> subprocess.CompletedProcess[str]:
    mcpctl = Path(sys.executable).with_name("mcpctl")
    return subprocess.run(
        [sys.executable, "-c", _CALL_TOOL.read_text(), str(mcpctl), str(node.config)],
        input=json.dumps({"token": token, "tool": tool, "arguments": arguments}),
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )


def test_a_permitted_call_is_answered(node: McpNode) -> None:
    done = call(node, node.token(), "monitoring_query_metrics", query="up")

    assert done.returncode == 0, done.stderr
    assert "job=prometheus" in done.stdout


def test_a_call_that_the_policy_refuses_fails_with_the_reason(node: McpNode) -> None:
    done = call(node, node.token(roles=["nobody"]), "monitoring_query_metrics", query="up")

    assert done.returncode == 1
    assert done.stdout == ""
    assert "monitoring_query_metrics was refused: " in done.stderr


def test_a_call_that_the_tool_cannot_do_fails_with_what_it_said(node: McpNode) -> None:
    done = call(node, node.token(), "monitoring_query_metrics", query="up{")

    assert done.returncode == 1
    assert "monitoring_query_metrics " in done.stderr
    assert "parse error" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_of_another_key_is_refused(node: McpNode) -> None:
    done = call(node, node.token(secret="x" * 32), "monitoring_query_metrics", query="up")

    assert done.returncode == 1
    assert "not usable" in done.stderr
