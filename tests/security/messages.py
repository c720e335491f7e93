"""Attacks by messages: JSON that readers understand differently, JSON-RPC, arguments, injections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.security.attack import ERAS, Answer, Attack, Request, as_, execute, message, token

__all__ = ["attacks"]

_INVALID = Answer(400, "invalid_request")
_ARGUMENTS = Answer(400, "invalid_arguments")
_ONE_MEANING = "the policy must read exactly what runs, so a body has one meaning"
_BOUNDED = "the work for one request is bounded"
_CALL = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
    b'"params":{"name":"cmdb_query_assets","arguments":ARGUMENTS}}'
)

# What is tried, why it must be refused, the arguments of a call as raw JSON.
_JSON: tuple[tuple[str, str, bytes], ...] = (
    ("a name twice", _ONE_MEANING, b'{"limit":1,"limit":500}'),
    ("a name twice, once escaped", _ONE_MEANING, rb'{"limit":1,"\u006cimit":500}'),
    ("a name twice, deep inside", _ONE_MEANING, b'{"owner":{"a":{"b":1,"b":2}}}'),
    ("NaN", _ONE_MEANING, b'{"limit":NaN}'),
    ("Infinity", _ONE_MEANING, b'{"limit":-Infinity}'),
    ("a number that is infinite", _ONE_MEANING, b'{"limit":1e999}'),
    ("a lone surrogate", _ONE_MEANING, rb'{"owner":"\ud800"}'),
    ("a lone surrogate in a name", _ONE_MEANING, rb'{"\udfff":1}'),
    ("bytes that are not UTF-8", _ONE_MEANING, b'{"owner":"\xff"}'),
    ("an overlong encoding", _ONE_MEANING, b'{"owner":"\xc0\xaf"}'),
    ("a surrogate in UTF-8", _ONE_MEANING, b'{"owner":"\xed\xa0\x80"}'),
    ("a comment", _ONE_MEANING, b'{"limit":1/**/}'),
    ("a comma too many", _ONE_MEANING, b'{"limit":1,}'),
    ("a control character in a text", _ONE_MEANING, b'{"owner":"\x00"}'),
    ("single quotes", _ONE_MEANING, b"{'limit':1}"),
    ("10,000 brackets", _BOUNDED, b"[" * 10_000 + b"]" * 10_000),
    ("10,000 objects in objects", _BOUNDED, b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ("a number of 5,000 digits", _BOUNDED, b'{"limit":' + b"9" * 5_000 + b"}"),
    ("100,000 values", _BOUNDED, b'{"fields":[' + b"1," * 100_000 + b"1]}"),
)
_BODIES: tuple[tuple[str, str, bytes, Answer], ...] = (
    ("an empty body", "a request is one JSON document", b"", _INVALID),
    ("two documents", _ONE_MEANING, b'{"jsonrpc":"2.0"}{"jsonrpc":"2.0"}', _INVALID),
    ("UTF-16", _ONE_MEANING, '{"jsonrpc":"2.0"}'.encode("utf-16"), _INVALID),
    (
        "a byte order mark",
        _ONE_MEANING,
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
        _INVALID,
    ),
    (
        "XML",
        "a request is one JSON document",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
        _INVALID,
    ),
    (
        "a body above the limit",
        _BOUNDED,
        b'"' + b"x" * 300_000 + b'"',
        Answer(413, "body_too_large"),
    ),
)
# Members of a message of JSON-RPC 2.0 that are not as they must be.
_MEMBERS: tuple[tuple[str, dict[str, Any], Answer], ...] = (
    ("no version", {"jsonrpc": None}, _INVALID),
    ("version 1.0", {"jsonrpc": "1.0"}, _INVALID),
    ("version as a number", {"jsonrpc": 2.0}, _INVALID),
    ("an id that is a list", {"id": []}, _INVALID),
    ("an id that is true", {"id": True}, _INVALID),
    ("an id that is a fraction", {"id": 1.5}, _INVALID),
    ("an id that is null", {"id": None}, _INVALID),
    ("a method that is a list", {"method": ["tools/call"]}, _INVALID),
    ("no method", {"method": None}, _INVALID),
    ("params as a list", {"params": ["cmdb_query_assets"]}, _INVALID),
    ("params as a text", {"params": "x"}, _INVALID),
)
_METHODS = (
    *(
        "tools/delete",
        "TOOLS/CALL",
        "tools/call ",
        "tools//call",
        "../tools/call",
        "rpc.discover",
    ),
    *(
        "sampling/createMessage",
        "roots/list",
        "tasks/list",
        "__import__('os')",
        "",
        "\u0000",
    ),
)
# Arguments that are no arguments of the tool.
_WRONG: tuple[tuple[str, str, Any], ...] = (
    ("arguments as a list", "cmdb_query_assets", [1]),
    ("arguments as a text", "cmdb_query_assets", "limit=1"),
    ("an argument that the tool does not have", "cmdb_query_assets", {"limit": 1, "debug": True}),
    ("__proto__", "cmdb_query_assets", {"__proto__": {"limit": 1}}),
    ("__class__", "cmdb_query_assets", {"__class__": "x"}),
    ("a limit above the maximum", "cmdb_query_assets", {"limit": 501}),
    ("a limit of 0", "cmdb_query_assets", {"limit": 0}),
    ("a negative limit", "cmdb_query_assets", {"limit": -1}),
    ("a limit with a fraction", "cmdb_query_assets", {"limit": 1.5}),
    ("a limit as a text", "cmdb_query_assets", {"limit": "1"}),
    ("a limit as true", "cmdb_query_assets", {"limit": True}),
    ("a limit of 2**63", "cmdb_query_assets", {"limit": 2**63}),
    ("a field that does not exist", "cmdb_query_assets", {"fields": ["password"]}),
    ("a type that does not exist", "cmdb_query_assets", {"asset_type": "server' OR '1'='1"}),
    ("a text that is too long", "cmdb_query_assets", {"owner": "x" * 257}),
    (
        "a duration of code",
        "cmdb_get_change_records",
        {"asset_id": "db1", "time_range": "7d; DROP TABLE"},
    ),
    (
        "a duration that is endless",
        "cmdb_get_change_records",
        {"asset_id": "db1", "time_range": "99999w"},
    ),
    (
        "a topology without an end",
        "cmdb_get_service_topology",
        {"service_name": "db1", "depth": 1000},
    ),
    (
        "a deployment's name with a path",
        "k8s_restart_deployment",
        {"deployment": "../../pods/x", "namespace": "development"},
    ),
    (
        "a deployment's name with a query",
        "k8s_restart_deployment",
        {"deployment": "web?dryRun=All", "namespace": "development"},
    ),
    (
        "a negative number of replicas",
        "k8s_scale_deployment",
        {"deployment": "web", "namespace": "development", "replicas": -1},
    ),
    (
        "a million replicas as a text",
        "k8s_scale_deployment",
        {"deployment": "web", "namespace": "development", "replicas": "1000000"},
    ),
    (
        "a pod's name with a command",
        "k8s_get_pod_logs",
        {"pod_name": "web; cat /etc/passwd", "namespace": "development"},
    ),
    (
        "a pod's name with a path",
        "k8s_get_pod_logs",
        {"pod_name": "web/../../secrets", "namespace": "development"},
    ),
    (
        "a million lines of a log",
        "k8s_get_pod_logs",
        {"pod_name": "web", "namespace": "development", "tail_lines": 10**6},
    ),
    (
        "a cluster's name that is a URL",
        "k8s_get_pods",
        {"cluster": "https://evil.test", "namespace": "development"},
    ),
    (
        "a service with PromQL",
        "monitoring_health_check",
        {"service": 'web"} or up{job="', "namespace": "development"},
    ),
    ("a query that is too long", "monitoring_query_metrics", {"query": "up + " * 10_000 + "up"}),
    ("no query", "monitoring_query_metrics", {}),
    ("a query that is null", "monitoring_query_metrics", {"query": None}),
    ("1,000 panels", "monitoring_create_dashboard", {"title": "x", "panels": ["up"] * 1000}),
    ("a blank title", "monitoring_create_dashboard", {"title": " ", "panels": ["up"]}),
    (
        "a dashboard's uid with a path",
        "monitoring_create_dashboard",
        {
            "title": "x",
            "panels": ["up"],
            "replace_uid": "../../admin/users" + "x" * 40,
            "expected_version": 1,
        },
    ),
)
_URIS = (
    *(
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "https://evil.test/",
        "enterprise://",
    ),
    *(
        "enterprise://cmdb/../k8s/clusters",
        "ENTERPRISE://cmdb/assets",
    ),
    *(
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "enterprise://policy/me/../other",
        "javascript:alert(1)",
        "enterprise://k8s/secrets",
    ),
)


def _over_http() -> Iterator[Attack]:
    for name, because, arguments in _JSON:
        yield Attack(
            f"{name}, over REST",
            because,
            Request("/tools/cmdb_query_assets/execute", body=arguments),
            _INVALID,
        )
        whole = _CALL.replace(b"ARGUMENTS", arguments)
        headers = {"MCP-Protocol-Version": "2025-06-18"}
        yield Attack(
            f"{name}, over MCP", because, Request("/mcp", headers=headers, body=whole), _INVALID
        )
    for name, because, body, refused in _BODIES:
        yield Attack(
            name,
            because,
            Request("/mcp", headers={"MCP-Protocol-Version": "2025-06-18"}, body=body),
            refused,
        )
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "text/json",
    ):
        request = Request(
            "/tools/cmdb_query_assets/execute", headers={"Content-Type": kind}, body={}
        )
        because = "a form of another site must not be read as a request"
        yield Attack(
            f"Content-Type: {kind}", because, request, Answer(415, "unsupported_media_type")
        )
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, identity"):
        request = Request("/mcp", headers={"Content-Encoding": coding}, body=b"\x1f\x8b")
        yield Attack(
            f"Content-Encoding: {coding}",
            "a small body must not become a large one",
            request,
            Answer(415, "unsupported_media_type"),
        )


def _json_rpc() -> Iterator[Attack]:
    because = "a message has the form of JSON-RPC 2.0"
    for name, members, refused in _MEMBERS:
        given = message("tools/call", {"name": "cmdb_query_assets", "arguments": {}})
        body = {
            key: value
            for key, value in {**given.body, **members}.items()
            if value is not None or key == "id"
        }
        yield Attack(name, because, Request("/mcp", headers=given.headers, body=body), refused)
    batch = [message("tools/list").body] * 2
    yield Attack("a batch", "one request is one decision", Request("/mcp", body=batch), _INVALID)
    for method in _METHODS:
        yield Attack(
            f"the method {method!r}",
            "what is not offered does not exist",
            message(method),
            Answer(200, "method_not_found", "method_unknown"),
        )
    for method, params, reason in (
        ("logging/setLevel", {"level": "debug"}, ""),
        ("resources/subscribe", {"uri": "enterprise://cmdb/assets"}, "not_available"),
    ):
        yield Attack(
            f"the method {method!r}",
            "what is not offered does not exist",
            message(method, params),
            Answer(200, "method_not_found", reason),
        )
    because = "gateways route by these headers, so they must not lie"
    for name, headers in (
        ("another method in Mcp-Method", {"Mcp-Method": "tools/list"}),
        ("another tool in Mcp-Name", {"Mcp-Name": "monitoring_query_metrics"}),
        ("another version in the header", {"MCP-Protocol-Version": "2025-06-18"}),
        ("an unknown version", {"MCP-Protocol-Version": "1999-01-01"}),
    ):
        request = message(
            "tools/call",
            {"name": "cmdb_query_assets", "arguments": {}},
            era="2026-07-28",
            headers=headers,
        )
        yield Attack(name, because, request, Answer(400, "header_mismatch"))
    for name, headers in (
        ("another method in Mcp-Method", {"Mcp-Method": "tools/list"}),
        ("another tool in Mcp-Name", {"Mcp-Name": "monitoring_query_metrics"}),
    ):
        call = message("tools/call", {"name": "cmdb_query_assets", "arguments": {}})
        request = Request("/mcp", headers={**call.headers, **headers}, body=call.body)
        yield Attack(f"{name}, MCP 2025-06-18", because, request, Answer(400, "header_mismatch"))


def _arguments() -> Iterator[Attack]:
    because = "arguments fit the published schema, and nothing else runs"
    for name, tool, arguments in _WRONG:
        refused = _INVALID if isinstance(arguments, list | str) else _ARGUMENTS
        yield Attack(name, because, execute(tool, arguments, by=as_("mcp:admin")), refused)
    for era in ERAS:
        for uri in _URIS:
            request = message("resources/read", {"uri": uri}, era=era, by=as_("mcp:admin"))
            yield Attack(
                f"the resource {uri[:40]!r}, MCP {era}",
                "only declared resources are read",
                request,
                Answer(200 if era == ERAS[0] else 400, "invalid_params", "not_available"),
            )
        # A path within the name of an asset stays a name.
        request = message("resources/read", {"uri": "enterprise://cmdb/assets/..%2f.."}, era=era)
        yield Attack(
            f"a path as the name of an asset, MCP {era}",
            "a parameter of a URI is no path",
            request,
            Answer(200 if era == ERAS[0] else 400, "invalid_params"),
        )
    for meta in ({"user": "root"}, {"subject": {"roles": ["mcp:admin"]}}):
        request = message(
            "tools/call",
            {"name": "k8s_restart_deployment", "arguments": {"deployment": "web"}, "_meta": meta},
            by=token,
        )
        yield Attack(
            f"_meta {str(meta)[:30]}",
            "who calls is told by the token alone",
            request,
            Answer(200, "forbidden", "not_available"),
        )


def attacks() -> Iterator[Attack]:
    """Yield the attacks by messages."""
    yield from _over_http()
    yield from _json_rpc()
    yield from _arguments()
