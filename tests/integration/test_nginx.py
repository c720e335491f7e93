"""What nginx repeats and what it does not: the real nginx, the role's configuration, toy nodes."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import httpx2
import pytest

from tests.integration import curl
from tests.integration.gateways import Nginx, write_configuration
from tests.integration.servers import Authority, Identity, free_port, program

_NODES = 3
_FAIL_TIMEOUT_S = 600
_MAX_FAILS = 3
_NAME = "mcp.lab.internal"

Manner = Literal["answers", "unavailable", "limited", "dies", "hangs"]


@dataclass
class _Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        node = self.server.node
        headers = {name.lower(): value for name, value in self.headers.items()}
        node.seen.append(_Seen(self.command, self.path, headers, body))
        match node.manner:
            case "dies":
                self.close_connection = True
            case "hangs":
                node.released.wait(120)
                self.close_connection = True
            case "unavailable":
                self._answer(503, {"Retry-After": "2"}, {"error": {"code": "from_the_node"}})
            case "limited":
                self._answer(429, {"Retry-After": "7"}, {"error": {"code": "rate_limited"}})
            case "answers":
                self._answer(200, {"X-Request-Id": "the node's own"}, {"node": node.name})

    do_GET = do_POST = _serve  # noqa: N815 # names of the base class

    def _answer(self, status: int, headers: dict[str, str], document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # name of the base class
        """Say nothing."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    node: ToyNode

    def process_request(self, request: object, client_address: object) -> None:
        self.node.accepted += 1
        super().process_request(request, client_address)  # type: ignore[arg-type] # passed on

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that goes away is part of the tests."""


@dataclass
class ToyNode:
    """A server node that behaves as a test wants, and remembers what it was asked.

    Attributes:
        accepted: the connections that it accepted.
    """

    name: str
    port: int
    context: ssl.SSLContext
    manner: Manner = "answers"
    seen: list[_Seen] = field(default_factory=list)
    accepted: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    _listener: _Listener | None = None

    def start(self) -> None:
        listener = _Listener(("127.0.0.1", self.port), _Handler)
        listener.node = self
        listener.socket = self.context.wrap_socket(
            listener.socket, server_side=True, do_handshake_on_connect=False
        )
        self._listener = listener
        threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.released.set()
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None


@dataclass
class Gateway:
    """The nginx under test with its nodes, and a client of it."""

    nginx: Nginx
    nodes: list[ToyNode]
    client: httpx2.Client

    def post(self, path: str = "/mcp", **options: object) -> httpx2.Response:
        return self.client.post(path, json={"jsonrpc": "2.0"}, **options)  # type: ignore[arg-type] # passed on

    def asked(self) -> list[int]:
        """Return how many requests each node was given."""
        return [len(node.seen) for node in self.nodes]


def _server_context(authority: Authority, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return [free_port() for _ in range(_NODES + 1)]


def _write(directory: Path, authority: Authority, ports: list[int], **different: object) -> Path:
    return write_configuration(
        directory,
        authority,
        nodes=ports[:_NODES],
        port=ports[-1],
        **{
            "nginx_read_timeout_s": 4,
            "nginx_upstream_max_fails": _MAX_FAILS,
            "nginx_upstream_fail_timeout_s": _FAIL_TIMEOUT_S,
            "nginx_requests_per_second": 5,
            "nginx_requests_burst": 100,
            **different,
        },
    )


@pytest.fixture(scope="module")
def configuration(workspace: Path, authority: Authority, ports: list[int]) -> Path:
    """A directory with the configuration files."""
    return _write(workspace / "nginx", authority, ports)


@contextmanager
def _running(configuration: Path, authority: Authority, ports: list[int]) -> Iterator[Gateway]:
    identity = authority.identity("mcp-server", dns=("mcp-server.lab.internal",))
    nodes = [
        ToyNode(f"node{number}", port, _server_context(authority, identity))
        for number, port in enumerate(ports[:_NODES], 1)
    ]
    for node in nodes:
        node.start()
    nginx = Nginx(configuration, ports[-1])
    nginx.start()
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    with httpx2.Client(
        verify=trusted, base_url=f"https://127.0.0.1:{nginx.port}", timeout=90
    ) as client:
        yield Gateway(nginx, nodes, client)
    nginx.stop()
    for node in nodes:
        node.stop()


@pytest.fixture
def gateway(configuration: Path, authority: Authority, ports: list[int]) -> Iterator[Gateway]:
    """nginx without a memory of failures, and three nodes that answer."""
    with _running(configuration, authority, ports) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def named_configuration(workspace: Path, authority: Authority, ports: list[int]) -> Path:
    """As `configuration`, for one name only."""
    return _write(workspace / "named", authority, ports, nginx_server_names=[_NAME])


@pytest.fixture
def named(named_configuration: Path, authority: Authority, ports: list[int]) -> Iterator[Gateway]:
    """As `gateway`, for one name only."""
    with _running(named_configuration, authority, ports) as gateway:
        yield gateway


def word(answer: httpx2.Response | curl.Answer) -> str:
    """Return the word for an error, which stands in `data` in errors of JSON-RPC."""
    error = answer.json()["error"]
    return str(error.get("data", error)["code"])


def test_testing_the_configuration_in_a_shell_warns_of_no_limit_of_the_shell(
    configuration: Path,
) -> None:
    nginx = [program("nginx", "nginx"), "-t", "-q", "-c", str(configuration / "nginx.conf")]

    done = subprocess.run(
        ["bash", "-c", 'ulimit -Sn 1024 && exec "$@"', "bash", *nginx],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert "worker_connections" not in done.stderr


def test_a_request_reaches_one_node_with_what_only_nginx_may_say(gateway: Gateway) -> None:
    claims = {
        "X-Request-Id": "mine",
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=10.0.0.1",
        "X-Real-IP": "10.0.0.1",
        "X-Client-Certificate": "-----BEGIN%20CERTIFICATE-----",
    }

    answer = gateway.post(headers=claims)

    (seen,) = [seen for node in gateway.nodes for seen in node.seen]
    assert answer.status_code == 200
    assert seen.headers["x-forwarded-for"] == "127.0.0.1"
    assert seen.headers["x-forwarded-proto"] == "https"
    assert "forwarded" not in seen.headers
    assert "x-real-ip" not in seen.headers
    assert "x-client-certificate" not in seen.headers
    assert answer.headers.get_list("x-request-id") == [seen.headers["x-request-id"]]
    assert seen.headers["x-request-id"] != "mine"


def test_requests_one_after_another_share_a_connection_to_each_node(gateway: Gateway) -> None:
    for number in range(10 * _NODES):
        answer = gateway.post("/mcp" if number % 2 else "/tools/a/execute")
        assert answer.status_code == 200

    assert gateway.asked() == [10] * _NODES
    assert [node.accepted for node in gateway.nodes] == [1] * _NODES


def test_a_sign_in_reaches_one_node_and_no_path_beside_it_does(gateway: Gateway) -> None:
    assert gateway.post("/auth/token").status_code == 200
    assert sum(gateway.asked()) == 1

    for path in ("/auth", "/auth/", "/auth/token/", "/auth/tokens", "/auth/token/x"):
        assert gateway.post(path).status_code == 404
    assert sum(gateway.asked()) == 1


@pytest.mark.parametrize("path", ["/mcp", "/tools", "/health", "/nowhere"])
@pytest.mark.parametrize(
    ("request_line", "headers", "status", "code"),
    [
        ("TRACE {} HTTP/1.1", "", 405, "method_not_allowed"),
        ("POST {} HTTP/1.1", "Transfer-Encoding: gzip\r\n", 501, "not_implemented"),
        ("GET {} HTTP/3.1", "", 505, "version_not_supported"),
    ],
)
def test_what_nginx_itself_refuses_has_the_form_of_all_errors(
    gateway: Gateway, path: str, request_line: str, headers: str, status: int, code: str
) -> None:
    answer = _raw(
        gateway,
        f"{request_line.format(path)}\r\nHost: {_NAME}\r\n{headers}Connection: close\r\n\r\n",
    )

    head, _, body = answer.partition("\r\n\r\n")
    assert head.split()[1] == str(status)
    assert "content-type: application/json" in head.lower()
    error = json.loads(body)["error"]
    assert error.get("data", error)["code"] == code
    assert ("data" in error) == (path == "/mcp")
    assert ("\r\nAllow: GET, HEAD, POST" in head) == (status == 405)
    assert sum(gateway.asked()) == 0


def _raw(gateway: Gateway, request: str) -> str:
    """Send a request as it is, and return all of the answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", gateway.nginx.port), timeout=20) as raw,
        context.wrap_socket(raw) as connection,
    ):
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_a_node_that_refuses_is_passed_over_and_leaves_the_rotation(gateway: Gateway) -> None:
    gateway.nodes[0].manner = "unavailable"

    answers = [gateway.post().status_code for _ in range(60)]

    assert set(answers) == {200}
    # Each worker of nginx may be asking once while the others count.
    assert _MAX_FAILS <= gateway.asked()[0] <= _MAX_FAILS + (os.cpu_count() or 1)


def test_when_every_node_refuses_the_client_gets_the_refusal_of_the_last(gateway: Gateway) -> None:
    for node in gateway.nodes:
        node.manner = "unavailable"

    first = gateway.post()
    others = [gateway.post() for _ in range(10)]

    assert first.status_code == 503
    assert first.headers["retry-after"] == "2"
    assert word(first) == "from_the_node"
    assert gateway.asked()[0] >= 1
    # Later, when all have left the rotation, nginx says so itself.
    assert {answer.status_code for answer in others} == {503}
    assert others[-1].headers["retry-after"] == "1"
    assert word(others[-1]) == "unavailable"


def test_a_call_that_a_node_took_is_never_repeated_when_the_node_dies(gateway: Gateway) -> None:
    for node in gateway.nodes:
        node.manner = "dies"

    answer = gateway.post()

    assert answer.status_code == 502
    assert word(answer) == "connection_lost"
    assert sum(gateway.asked()) == 1


def test_a_call_that_a_node_took_is_never_repeated_when_the_answer_is_late(
    gateway: Gateway,
) -> None:
    for node in gateway.nodes:
        node.manner = "hangs"

    answer = gateway.post()

    assert answer.status_code == 504
    assert word(answer) == "no_answer"
    assert sum(gateway.asked()) == 1


def test_a_read_is_repeated_when_the_node_dies(gateway: Gateway) -> None:
    gateway.nodes[0].manner = gateway.nodes[1].manner = "dies"

    answers = [gateway.client.get("/tools") for _ in range(6)]

    assert {answer.status_code for answer in answers} == {200}
    assert gateway.asked()[0] > 0


def test_calls_go_on_when_nodes_do_not_listen(gateway: Gateway) -> None:
    for node in gateway.nodes[:2]:
        node.stop()

    answers = [gateway.post() for _ in range(12)]

    assert {answer.status_code for answer in answers} == {200}
    assert gateway.asked() == [0, 0, 12]


def test_calls_go_on_past_one_node_that_refuses_and_one_that_does_not_listen(
    gateway: Gateway,
) -> None:
    gateway.nodes[0].stop()
    gateway.nodes[1].manner = "unavailable"

    answers = [gateway.post() for _ in range(12)]

    assert {answer.status_code for answer in answers} == {200}
    assert gateway.asked()[2] == 12


def test_a_call_that_no_node_can_take_is_said_not_to_be_executed(gateway: Gateway) -> None:
    for node in gateway.nodes:
        node.stop()

    answer = gateway.post()

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert word(answer) == "unavailable"


def test_a_node_with_another_name_in_its_certificate_gets_nothing(
    gateway: Gateway, authority: Authority
) -> None:
    impostor = gateway.nodes[0]
    impostor.stop()
    impostor.context = _server_context(
        authority, authority.identity("postgres", dns=("postgres.db1.lab.internal",))
    )
    impostor.start()

    answers = [gateway.post() for _ in range(6)]

    assert {answer.status_code for answer in answers} == {200}
    assert gateway.asked()[0] == 0


def test_asking_for_health_does_not_take_a_node_out_of_the_rotation(gateway: Gateway) -> None:
    for node in gateway.nodes:
        node.manner = "unavailable"
    health = [gateway.client.get("/health/ready").status_code for _ in range(12)]
    for node in gateway.nodes:
        node.manner = "answers"
        node.seen.clear()

    answers = [gateway.post().status_code for _ in range(9)]

    assert set(health) == {503}
    assert set(answers) == {200}
    assert min(gateway.asked()) > 0


def test_the_nodes_own_errors_reach_the_client_untouched(gateway: Gateway) -> None:
    for node in gateway.nodes:
        node.manner = "limited"

    answer = gateway.post("/tools/k8s_scale_deployment/execute")

    assert answer.status_code == 429
    assert answer.headers.get_list("retry-after") == ["7"]
    assert answer.json() == {"error": {"code": "rate_limited"}}


@pytest.mark.parametrize("path", ["/", "/metrics", "/status", "/mcp/", "/health/other", "/docs"])
def test_other_paths_do_not_exist(gateway: Gateway, path: str) -> None:
    answer = gateway.client.get(path)

    assert answer.status_code == 404
    assert word(answer) == "not_found"
    assert sum(gateway.asked()) == 0


@pytest.mark.parametrize("path", ["/tools/x%00/execute", "/tools/..%2f../execute", "/%2e%2e/mcp"])
def test_a_path_that_cannot_be_read_is_the_fault_of_the_client(gateway: Gateway, path: str) -> None:
    answer = gateway.client.post(path, json={})

    assert answer.status_code in (400, 404)
    assert word(answer) in ("bad_request", "not_found")
    assert sum(gateway.asked()) == 0


@pytest.mark.parametrize("path", ["/.error/unavailable", "/.error/bad_request"])
def test_no_client_asks_for_the_answers_to_errors(gateway: Gateway, path: str) -> None:
    answer = gateway.client.get(path)

    assert answer.status_code == 404
    assert word(answer) == "not_found"


# What is asked for besides JSON, how the nodes are, the status, the word, the number of JSON-RPC.
_OWN_ANSWERS = [
    pytest.param({"headers": {"Host": "a b"}}, "answers", 400, "bad_request", -32600, id="400"),
    pytest.param({"content": b"x" * 2_000_000}, "answers", 413, "body_too_large", -32600, id="413"),
    pytest.param({"params": {"x": "x" * 20_000}}, "answers", 414, "uri_too_long", -32600, id="414"),
    pytest.param(
        {"headers": {"X-Large": "x" * 20_000}},
        *("answers", 431, "headers_too_large", -32600),
        id="431",
    ),
    pytest.param({}, "dies", 502, "connection_lost", -32012, id="502"),
    pytest.param({}, "gone", 503, "unavailable", -32012, id="503"),
    pytest.param({}, "hangs", 504, "no_answer", -32012, id="504"),
]


@pytest.mark.parametrize(("asked", "manner", "status", "code", "number"), _OWN_ANSWERS)
def test_what_nginx_answers_itself_is_in_the_form_that_the_client_reads(
    gateway: Gateway,
    asked: dict[str, object],
    manner: Manner | Literal["gone"],
    status: int,
    code: str,
    number: int,
) -> None:
    for node in gateway.nodes:
        if manner == "gone":
            node.stop()
        else:
            node.manner = manner
    options: dict[str, object] = {"content": b"{}", **asked}

    mcp, rest = (
        gateway.client.post(path, **options)  # type: ignore[arg-type] # passed on
        for path in ("/mcp", "/tools/x/execute")
    )

    assert mcp.status_code == rest.status_code == status
    assert mcp.headers["content-type"] == rest.headers["content-type"] == "application/json"
    assert rest.json()["error"]["code"] == code
    message = rest.json()["error"]["message"]
    data = {"code": code, "retryable": False, "request_id": mcp.headers["x-request-id"]}
    if status == 503:
        assert mcp.headers["retry-after"] == rest.headers["retry-after"] == "1"
        data |= {"retryable": True, "retry_after_ms": 1000}
    error = {"code": number, "message": message, "data": data}
    assert mcp.json() == {"jsonrpc": "2.0", "id": None, "error": error}


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({}, 421, "unknown_host"),
        ({"headers": {"Host": "a b"}}, 400, "bad_request"),
        ({"content": b"x" * 2_000_000}, 413, "body_too_large"),
        ({"params": {"x": "x" * 20_000}}, 414, "uri_too_long"),
    ],
)
def test_a_host_that_is_not_ours_is_answered_in_the_same_forms(
    named: Gateway, asked: dict[str, object], status: int, code: str
) -> None:
    options: dict[str, object] = {"content": b"{}", **asked}

    mcp, rest = (
        named.client.post(path, **options)  # type: ignore[arg-type] # passed on
        for path in ("/mcp?x=1", "/tools/x/execute")
    )

    assert mcp.status_code == rest.status_code == status
    assert mcp.json()["error"]["code"] == -32600
    assert word(mcp) == word(rest) == rest.json()["error"]["code"] == code
    assert named.post(headers={"Host": _NAME}).status_code == 200


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "unsized"])
@pytest.mark.parametrize("version", curl.VERSIONS)
@pytest.mark.parametrize("path", ["/mcp", "/tools/cmdb_query_assets/execute"])
def test_a_body_that_is_too_large_reaches_no_node(
    gateway: Gateway, authority: Authority, path: str, version: str, sized: bool
) -> None:
    def errors() -> list[str]:
        log = (gateway.nginx.directory / "error.log").read_text()
        return [line for line in log.splitlines() if "[error]" in line]

    before = len(errors())

    answer = curl.post(
        f"{gateway.client.base_url}{path}",
        b"x" * 10_000_000,
        ca=authority.ca,
        version=version,
        sized=sized,
    )

    assert answer.version == version.removeprefix("http")
    assert answer.status == 413
    assert answer.headers["content-type"] == ["application/json"]
    assert word(answer) == "body_too_large"
    assert ("jsonrpc" in answer.json()) == (path == "/mcp")
    assert sum(gateway.asked()) == 0
    (error,) = errors()[before:]
    assert "client intended to send too large" in error


def test_a_flood_from_one_address_is_answered_with_a_time_to_wait(gateway: Gateway) -> None:
    statuses = set()
    for _ in range(400):
        answer = gateway.client.get("/health/live?access_token=secret-of-a-flood")
        statuses.add(answer.status_code)
        if answer.status_code == 429:
            break

    assert statuses == {200, 429}
    assert answer.headers["retry-after"] == "1"
    assert word(answer) == "too_many_requests"
    gateway.nginx.stop()
    entry = json.loads((gateway.nginx.directory / "access.log").read_text().splitlines()[-1])
    assert (entry["status"], entry["path"]) == (429, "/health/live")
    for log in ("access.log", "error.log"):
        assert "secret-of-a-flood" not in (gateway.nginx.directory / log).read_text()


def test_a_flood_of_messages_is_answered_as_a_limit(gateway: Gateway) -> None:
    for _ in range(400):
        answer = gateway.post()
        if answer.status_code != 200:
            break

    error = answer.json()["error"]
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert error["code"] == -32011
    assert error["data"].items() >= {"code": "too_many_requests", "retryable": True}.items()
    assert error["data"]["retry_after_ms"] == 1000


def test_the_access_log_has_no_query_and_no_token(gateway: Gateway) -> None:
    gateway.post("/mcp?access_token=secret-one", headers={"Authorization": "Bearer secret-two"})
    gateway.nginx.stop()

    log = (gateway.nginx.directory / "access.log").read_text()
    entry = json.loads(log.splitlines()[-1])

    assert entry["path"] == "/mcp"
    assert entry["status"] == 200
    assert "secret" not in log
