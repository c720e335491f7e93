"""The module enterprise.mcp.wait_for_answer: servers that start late, stay away, say other things."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.plays import LOCAL, run_play

ROOT = Path(__file__).resolve().parents[2]

Answer = tuple[int, Any]
Wait = Callable[..., "subprocess.CompletedProcess[str]"]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, asked: Any) -> None:
        answers = self.server.answers
        self.server.asked.append(asked)
        status, content = answers.pop(0) if len(answers) > 1 else answers[0]
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return ""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """Of several answers each is given once, the last one for ever."""

    def __init__(self, path: Path | None = None) -> None:
        self.answers: list[Answer] = [(200, {})]
        self.asked: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=path is None)
        if path is not None:
            self.socket.close()
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(str(path))
            self.socket.listen()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


@pytest.fixture
def serve() -> Iterator[Callable[[_Server], _Server]]:
    """Let a server answer until the test is over."""
    running: list[tuple[_Server, threading.Thread]] = []

    def start(server: _Server) -> _Server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(serve: Callable[[_Server], _Server]) -> _Server:
    return serve(_Server())


@pytest.fixture
def wait(tmp_path: Path) -> Wait:
    """Run the module on this machine and show what it returns."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        tasks: list[dict[str, Any]] = [
            {"enterprise.mcp.wait_for_answer": options, "register": "waited"},
            {"ansible.builtin.debug": {"msg": "{{ waited.answers | map(attribute='said') }}"}},
        ]
        inventory = {"all": {"hosts": {"a1": LOCAL}}}
        return run_play(tmp_path, tasks, *arguments, inventory=inventory)

    return run


def test_a_server_that_starts_late_is_waited_for_and_nothing_is_called_failed(
    wait: Wait, server: _Server
) -> None:
    server.answers = [(503, "starting"), (503, "starting"), (200, "ready")]

    result = wait(urls=[server.url], timeout=60)

    assert result.returncode == 0, result.stdout
    assert "changed=0" in result.stdout
    assert "FAILED" not in result.stdout
    assert len(server.asked) == 3


def test_several_urls_are_asked_one_after_the_other(
    wait: Wait, serve: Callable[[_Server], _Server]
) -> None:
    servers = [serve(_Server()), serve(_Server())]
    servers[1].answers = [(404, ""), (200, {"a": 1})]

    result = wait(urls=[server.url for server in servers], timeout=60)

    assert result.returncode == 0, result.stdout
    assert [len(server.asked) for server in servers] == [1, 2]


def test_an_answer_is_waited_for_by_what_it_holds(wait: Wait, tmp_path: Path, serve: Any) -> None:
    path = tmp_path / "opa.sock"
    opa = serve(_Server(path))
    old, new = ({"result": {"revision": name, "allow_ok": True}} for name in ("r1", "r2"))
    opa.answers = [(200, {}), (200, "no json"), (200, []), (200, old), (200, new)]

    result = wait(
        urls=["http://opa/v1/data/canary"],
        unix_socket=str(path),
        body={"input": {}},
        holds={"result": {"revision": "r2"}},
        timeout=60,
    )

    assert result.returncode == 0, result.stdout
    assert opa.asked == [{"input": {}}] * 5
    assert json.dumps(new) in result.stdout


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((503, "no bundle"), "Last answer: 503, no bundle"),
        ((200, {"result": {"revision": "r1"}}), 'Last answer: 200, {"result": {"revision": "r1"}}'),
        ((204, ""), "Last answer: 204, empty"),
    ],
)
def test_another_answer_fails_once_and_is_told(
    wait: Wait, server: _Server, answer: Answer, said: str
) -> None:
    server.answers = [answer]

    result = wait(urls=[server.url], holds={"result": {"revision": "r2"}}, timeout=1)

    assert result.returncode != 0
    assert f"{server.url} did not answer as wanted within 1 s. {said}" in result.stdout
    assert result.stdout.count("FAILED") == 1
    assert len(server.asked) > 1


def test_nobody_there_is_told_as_such(wait: Wait) -> None:
    closed = _Server()
    closed.server_close()

    result = wait(urls=[closed.url], timeout=1)

    assert result.returncode != 0
    assert "within 1 s. Last answer: none, <urlopen error [Errno 111] Connection refused>" in (
        result.stdout
    )


def test_a_socket_that_is_not_there_is_told_as_such(wait: Wait, tmp_path: Path) -> None:
    result = wait(urls=["http://opa/"], unix_socket=str(tmp_path / "absent.sock"), timeout=1)

    assert result.returncode != 0
    assert "absent.sock" in result.stdout
    assert "Last answer: none" in result.stdout


def test_no_task_of_ours_is_tried_again_in_red() -> None:
    """Ansible prints FAILED - RETRYING for each attempt but the last, in a healthy run as well."""
    tasks = [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/*.yml")]

    assert len(tasks) > 50
    assert [str(path) for path in tasks if re.search(r"(?m)^ *until:", path.read_text())] == []


def test_it_asks_in_check_mode_as_well(wait: Wait, server: _Server) -> None:
    result = wait("--check", urls=[server.url], status_code=[200])

    assert result.returncode == 0, result.stdout
    assert len(server.asked) == 1
