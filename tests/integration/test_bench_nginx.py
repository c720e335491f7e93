"""The benchmark's Nginx keeps its connections to the workers: else it would measure their opening."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from tests.bench.first import Nginx
from tests.integration.servers import Authority

_REQUESTS = 20


class _Worker(ThreadingHTTPServer):
    """Answers every request, and counts the connections that it accepted."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.accepted = 0
        self.hosts: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def process_request(self, request: object, client_address: object) -> None:
        self.accepted += 1
        super().process_request(request, client_address)  # type: ignore[arg-type] # passed on


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Worker

    def do_POST(self) -> None:  # name of the base class
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.hosts.append(self.headers["Host"])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # name of the base class
        """Say nothing."""


@pytest.fixture
def workers() -> Iterator[list[_Worker]]:
    """One of ours, and one of the bare SDK."""
    running = [_Worker(), _Worker()]
    yield running
    for worker in running:
        worker.shutdown()
        worker.server_close()


def test_requests_one_after_another_share_a_connection_to_the_worker(
    tmp_path: Path, authority: Authority, workers: list[_Worker]
) -> None:
    governed, bare = workers
    nginx = Nginx(tmp_path, authority, [governed.server_port], [bare.server_port])
    nginx.start()
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    try:
        with httpx2.Client(verify=trusted, base_url=f"https://127.0.0.1:{nginx.port}") as http:
            for path in ("/mcp", "/bare"):
                for _ in range(_REQUESTS):
                    assert http.post(path, json={}).status_code == 200
    finally:
        nginx.stop()

    assert [worker.accepted for worker in workers] == [1, 1]
    assert governed.hosts == ["127.0.0.1"] * _REQUESTS
    assert bare.hosts == [f"127.0.0.1:{bare.server_port}"] * _REQUESTS
