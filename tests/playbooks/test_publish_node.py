"""A publication asks a node once when it decides by the new policies already, and again until it does.

A server on a Unix socket answers in place of OPA; a real OPA is for tests/deploy.
"""

from __future__ import annotations

import hashlib
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.plays import LOCAL, role_of, run_play


class _Opa(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers canary decisions; of several answers each is given once, the last one for ever."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.answers: list[dict[str, Any]] = []
        self.asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Opa

    def do_POST(self) -> None:
        self.server.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        answers = self.server.answers
        result = answers.pop(0) if len(answers) > 1 else answers[0]
        body = json.dumps({"result": result}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def opa(tmp_path: Path) -> Iterator[_Opa]:
    with _Opa(tmp_path / "opa.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answer(revision: str, *, allow_ok: bool = True) -> dict[str, Any]:
    return {"revision": revision, "allow_ok": allow_ok, "deny_ok": True}


def publish(folder: Path, *, installed: str) -> str:
    """Publish revision r2 to a node with the given bundle; return what the role says."""
    (folder / "new").write_text("bundle r2")
    (folder / "bundle").write_text(installed)
    told = "published={{ __opa_published | default(false) }} {{ __opa_refusal | default('') }}"
    done = run_play(
        folder,
        [role_of("opa", "publish_node"), {"ansible.builtin.debug": {"msg": told}}],
        inventory={"all": {"hosts": {"node1": LOCAL}}},
        variables={
            "opa_publish_timeout_seconds": 10,
            "__opa_revision": "r2",
            "__opa_new_bundle": str(folder / "new"),
            "__opa_new_checksum": hashlib.sha256(b"bundle r2").hexdigest(),
            "__opa_bundle": str(folder / "bundle"),
            "__opa_bundle_previous": str(folder / "previous"),
            "__opa_socket": str(folder / "opa.sock"),
        },
        as_root=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def test_a_node_that_has_the_policies_is_asked_once(tmp_path: Path, opa: _Opa) -> None:
    opa.answers = [answer("r2")]

    said = publish(tmp_path, installed="bundle r2")

    assert "published=True" in said
    assert opa.asked == 1
    assert "changed=0" in said


def test_a_node_that_has_them_and_decides_otherwise_is_refused(tmp_path: Path, opa: _Opa) -> None:
    opa.answers = [answer("r2", allow_ok=False)]

    said = publish(tmp_path, installed="bundle r2")

    assert "published=False Require a correct canary decision: The canary decision fails" in said


@pytest.mark.parametrize("installed", ["bundle r1", "bundle r2"])
def test_a_node_that_does_not_use_them_yet_is_asked_until_it_does(
    tmp_path: Path, opa: _Opa, installed: str
) -> None:
    """Also when an interrupted run installed the bundle."""
    opa.answers = [answer("r1"), answer("r1"), answer("r2")]

    said = publish(tmp_path, installed=installed)

    assert "published=True" in said
    assert opa.asked == 3
    assert (tmp_path / "bundle").read_text() == "bundle r2"


def test_a_node_that_gets_another_bundle_of_the_same_revision_is_asked_again(
    tmp_path: Path, opa: _Opa
) -> None:
    opa.answers = [answer("r2")]

    assert "published=True" in publish(tmp_path, installed="bundle r2, signed by another key")
    assert opa.asked == 2
