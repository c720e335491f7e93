"""`mcpctl probe` against a node that answers what the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mcp_server.cli import main

READY = {
    "ready": True,
    "draining": False,
    "checks": {"policy": "up", "counters": "up", "audit": "up"},
    "policy_revision": "r2",
}
NO_POLICY = READY | {"ready": False, "checks": {**READY["checks"], "policy": "down"}}  # type: ignore[dict-item]


class Node:
    """A status listener; of several answers each is given once, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Any] = [READY]
        self.questions = 0
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                node.questions += 1
                answer = node.answers.pop(0) if len(node.answers) > 1 else node.answers[0]
                content = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    thread = threading.Thread(target=node.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield node
    node.server.shutdown()
    thread.join()
    node.server.server_close()


@pytest.fixture
def nobody() -> Node:
    """A node that does not run: its port is closed."""
    node = Node()
    node.server.server_close()
    return node


def probe(folder: Path, node: Node, *options: str) -> Result:
    config = folder / "config.yaml"
    document = {
        "node": "n1",
        "public_url": "https://mcp.test",
        "telemetry": {"port": node.port},
        "identity": {"jwt": {"secret": {"file": "/s"}, "issuer": "i", "audience": "a"}},
        "counters": {"url": "redis://127.0.0.1"},
        "database": {"host": "127.0.0.1"},
    }
    config.write_text(yaml.safe_dump(document))
    return CliRunner().invoke(main, ["probe", "--config", str(config), *options])


def test_a_ready_node_is_told_as_json_alone(tmp_path: Path, node: Node) -> None:
    result = probe(tmp_path, node)

    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == READY


def test_without_a_wait_a_node_is_asked_once(tmp_path: Path, node: Node) -> None:
    node.answers = [NO_POLICY, READY]

    result = probe(tmp_path, node)

    assert result.exit_code == 1
    assert json.loads(result.stdout) == NO_POLICY
    assert result.stderr == "Error: not ready. Last answer: policy is down\n"
    assert node.questions == 1


def test_a_wait_ends_when_the_node_is_ready(tmp_path: Path, node: Node) -> None:
    node.answers = [NO_POLICY, NO_POLICY, READY]

    result = probe(tmp_path, node, "--wait", "60")

    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == READY
    assert node.questions == 3


@pytest.mark.parametrize(
    ("answer", "options", "said"),
    [
        (NO_POLICY, (), "policy is down"),
        (READY | {"ready": False, "draining": True}, (), "it is draining"),
        (READY | {"ready": False}, (), "it is not ready"),
        ({}, (), "it is not ready"),
        (READY, ("--revision", "r3"), "it decides by the policies r2 and not by r3"),
        (
            READY | {"policy_revision": ""},
            ("--revision", "r3"),
            "it decides by the policies of no revision and not by r3",
        ),
        ([], (), "none, http://127.0.0.1:{port}/status: the answer is not a JSON object"),
    ],
)
def test_a_wait_that_is_over_says_what_the_last_answer_was(
    tmp_path: Path, node: Node, answer: Any, options: tuple[str, ...], said: str
) -> None:
    node.answers = [answer]

    result = probe(tmp_path, node, "--wait", "0.6", *options)

    assert result.exit_code == 1
    expected = said.format(port=node.port)
    assert result.stderr == f"Error: not ready after 0.6 s. Last answer: {expected}\n"
    assert isinstance(json.loads(result.stdout), dict)
    assert node.questions > 1


def test_a_wait_for_a_revision_ends_when_the_node_decides_by_it(tmp_path: Path, node: Node) -> None:
    node.answers = [READY, READY, READY | {"policy_revision": "r3"}]

    result = probe(tmp_path, node, "--wait", "60", "--revision", "r3")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["policy_revision"] == "r3"


def test_a_node_that_does_not_run_is_told_as_such(tmp_path: Path, nobody: Node) -> None:
    result = probe(tmp_path, nobody, "--wait", "0.6")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["ready"] is False
    assert "not ready after 0.6 s. Last answer: none, " in result.stderr
    assert f"Cannot connect to host 127.0.0.1:{nobody.port}" in result.stderr


def test_a_wait_that_is_no_time_is_refused(tmp_path: Path, node: Node) -> None:
    result = probe(tmp_path, node, "--wait", "-1")

    assert result.exit_code == 2
    assert "-1.0 is not in the range x>=0" in result.stderr
