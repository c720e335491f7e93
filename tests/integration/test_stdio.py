"""`mcpctl stdio`: as roles/mcp_server calls it to see whether a node does its work, and for long."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.nodes import McpNode

_CALL_TOOL = Path(__file__).resolve().parents[2] / "roles/mcp_server/files/call_tool.py"
_DEADLINE_S = 180


def call(
    node: McpNode, token: str, tool: str, **arguments: Any
) -> subprocess.CompletedProcess[str]:
    mcpctl = Path(sys.executable).with_name("mcpctl")
    return subprocess.run(
        [sys.executable, str(_CALL_TOOL), str(mcpctl), str(node.config)],
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


# mcpctl, whose clock is ahead by the seconds that a file holds.
_MCPCTL = """
import sys, time
from pathlib import Path

ahead, real = Path(sys.argv.pop(1)), time.time
time.time = lambda: real() + float(ahead.read_text() or 0)

from mcp_server.cli import main

main()
"""


class Session:
    """An open session, whose messages are sent and read one by one, and whose clock can be moved."""

    def __init__(self, config: Path, token_file: Path) -> None:
        self._ahead = config.with_name("ahead")
        self.forward(0)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", _MCPCTL, self._ahead),
                *("stdio", "--config", config, "--token-file", token_file),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def forward(self, seconds: float) -> None:
        """Move its clock ahead of ours."""
        self._ahead.write_text(str(seconds))

    def tell(self, method: str, **params: Any) -> None:
        self._write({"method": method, "params": params})

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        assert self.process.stdout is not None
        self._write({"id": 1, "method": method, "params": params})
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()


@pytest.fixture
def session(node: McpNode, tmp_path: Path) -> Iterator[Callable[[str], Session]]:
    """Open a session with a token, whose end is its end to the second."""
    settings = yaml.safe_load(node.config.read_text())
    settings["identity"]["jwt"]["leeway_s"] = 0
    config, token_file = tmp_path / "config.yaml", tmp_path / "token"
    config.write_text(yaml.safe_dump(settings))
    opened: list[Session] = []

    def open_session(token: str) -> Session:
        token_file.write_text(token)
        opened.append(Session(config, token_file))
        return opened[-1]

    yield open_session
    for each in opened:
        each.process.communicate(timeout=_DEADLINE_S)


def test_a_session_ends_with_its_token(node: McpNode, session: Callable[[str], Session]) -> None:
    call = {"name": "monitoring_query_metrics", "arguments": {"query": "up"}}
    running = session(node.token(ttl_s=600))
    running.ask(
        "initialize",
        protocolVersion="2025-06-18",
        capabilities={},
        clientInfo={"name": "test", "version": "1"},
    )
    running.tell("notifications/initialized")
    before = running.ask("tools/call", **call)
    running.forward(600)
    after = [
        running.ask("tools/call", **call),
        running.ask("tools/list"),
        running.ask("resources/read", uri="enterprise://policy/me"),
        running.ask("ping"),
    ]

    assert before["result"]["isError"] is False
    for answer in after:
        assert answer["error"]["code"] == -32013
        assert (
            "has expired; start `mcpctl stdio` again with a new one" in answer["error"]["message"]
        )
