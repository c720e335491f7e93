"""Attacks on HTTP: paths, methods, hosts, origins and headers."""

from __future__ import annotations

from collections.abc import Iterator

from tests.security.attack import Answer, Attack, Request, as_, execute

__all__ = ["attacks"]

_NOT_FOUND = Answer(404, "not_found")
_BAD = Answer(400, "bad_request")
# Each would reach something that clients must not reach.
_PATHS: tuple[tuple[str, Answer], ...] = (
    *(
        (path, _NOT_FOUND)
        for path in (
            "/",
            "/metrics",
            "/status",
            "/docs",
            "/swagger.json",
            "/admin",
            "/debug/pprof",
            "/.env",
            "/.git/config",
            "/v1/data/mcp/decision/authorize",
            "/v1/policies",
            "/server-status",
            "/nginx_status",
            "/mcp/",
            "/mcp/x",
            "/MCP",
            "/tools/",
            "/Tools",
            "//tools",
            "/tools//execute",
            "/tools/a/b/execute",
            "/health/",
            "/health/other",
            "/.error/unavailable",
            "/tools;x=1",
            "/mcp.json",
            "/static/../mcp_server/settings.py",
        )
    ),
    ("/%74ools/", _NOT_FOUND),
    *(
        (path, _BAD)
        for path in (
            "/%00",
            "/tools/x%00/execute",
            "/tools/..%2f..%2fmetrics",
            "/..%2f..%2fetc/passwd",
        )
    ),
)


def attacks() -> Iterator[Attack]:
    """Yield the attacks on HTTP."""
    for path, refused in _PATHS:
        because = "only documented paths exist"
        yield Attack(f"GET {path}", because, Request(path, method="GET"), refused)
    for path in ("/tools/cmdb_query_assets%2Fexecute", "/tools%2Fcmdb_query_assets/execute"):
        because = "gateways decide by the path as it was sent"
        yield Attack(f"POST {path}", because, Request(path, body={}), _NOT_FOUND)
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "LINK"):
        for path in ("/mcp", "/tools", "/tools/cmdb_query_assets/execute"):
            request = Request(path, method=method)
            yield Attack(
                f"{method} {path}",
                "a path takes its methods only",
                request,
                Answer(405, "method_not_allowed"),
            )
    for method in ("TRACE", "CONNECT"):
        request = Request("/mcp", method=method)
        yield Attack(
            f"{method} /mcp",
            "TRACE would show headers to scripts, CONNECT would be a proxy",
            request,
            Answer(405, "method_not_allowed"),
        )
    for host in (
        "evil.test",
        "127.0.0.1.evil.test",
        "evil.test#127.0.0.1",
        "localhost",
        "169.254.169.254",
    ):
        request = Request("/tools", method="GET", headers={"Host": host})
        yield Attack(
            f"Host: {host}",
            "another name may be a rebound DNS name",
            request,
            Answer(400, "unknown_host"),
        )
    for origin in (
        "https://evil.test",
        "null",
        "https://127.0.0.1.evil.test",
        "http://127.0.0.1",
        "https://127.0.0.1:1",
        "file://",
        "*",
    ):
        request = Request("/tools/cmdb_query_assets/execute", headers={"Origin": origin}, body={})
        yield Attack(
            f"Origin: {origin}",
            "pages of other sites make no requests",
            request,
            Answer(403, "foreign_origin"),
        )
    restart = execute(
        "k8s_restart_deployment",
        {"deployment": "web", "namespace": "development"},
        by=as_("mcp:viewer"),
    )
    for name, value in {
        "X-Forwarded-User": "root",
        "X-Remote-User": "root",
        "X-Roles": "mcp:admin",
        "X-Tenant": "acme",
        "X-Original-URL": "/metrics",
        "X-Rewrite-URL": "/metrics",
        "X-HTTP-Method-Override": "DELETE",
        "X-Forwarded-Host": "evil.test",
        "X-Forwarded-For": "10.0.0.1",
        "Forwarded": "for=10.0.0.1;host=evil.test",
        "X-Real-IP": "127.0.0.1",
        "X-SSL-Client-Verify": "SUCCESS",
        "X-Client-Certificate": "-----BEGIN%20CERTIFICATE-----%0AMIIB",
        "X-SSL-Client-S-DN": "CN=admin",
    }.items():
        request = Request(
            restart.path, headers={name: value}, body=restart.body, token=restart.token
        )
        because = "headers of a client give it no rights"
        yield Attack(
            f"{name}: {value}", because, request, Answer(403, "forbidden", "not_available")
        )
    for name in ("Authorization", "X-Request-Id", "X-Forwarded-For"):
        request = Request(
            restart.path,
            headers={"Connection": f"close, {name}"},
            body=restart.body,
            token=restart.token,
        )
        because = "a client must not make the proxy drop headers (RFC 9110 section 7.6.1)"
        yield Attack(
            f"Connection: {name}", because, request, Answer(403, "forbidden", "not_available")
        )
    request = Request("/tools", method="GET", headers={"X-Large": "x" * 20_000})
    yield Attack(
        "a header of 20 KB", "headers are bounded", request, Answer(431, "headers_too_large")
    )
    request = Request("/tools?" + "x" * 20_000, method="GET")
    yield Attack("a URL of 20 KB", "headers are bounded", request, Answer(414, "uri_too_long"))
    request = Request("/mcp", headers={"Accept": "text/html"}, body={})
    yield Attack(
        "Accept: text/html", "answers are JSON only", request, Answer(406, "not_acceptable")
    )
