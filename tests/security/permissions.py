"""Attacks on authorization: rights of another role, namespace or tenant, and what answers give away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.security.attack import ERAS, Answer, Attack, as_, execute, message

__all__ = ["attacks"]

VIEWER, OPERATOR, ADMIN = "mcp:viewer", "mcp:operator", "mcp:admin"
_HIDDEN = Answer(403, "forbidden", "not_available")
_ROLE = "roles grant permissions; this one lacks the permission of the tool"
_NAMESPACE = "roles are bound to namespaces"
_EXACT = "names of roles are compared as they are"

_DEPLOYMENT = {"deployment": "web"}
# Valid arguments, so that only the policy can refuse.
_CALLS: dict[str, dict[str, Any]] = {
    "cmdb_query_assets": {},
    "cmdb_get_service_topology": {"service_name": "db1"},
    "cmdb_get_change_records": {"asset_id": "db1"},
    "cmdb_update_asset_status": {"asset_id": "db1", "status": "inactive", "reason": "attack"},
    "k8s_get_pods": {"namespace": "development"},
    "k8s_get_deployments": {"namespace": "development"},
    "k8s_get_nodes": {},
    "k8s_get_events": {"namespace": "development"},
    "k8s_get_pod_logs": {"namespace": "development", "pod_name": "web"},
    "k8s_get_rollout_status": {"namespace": "development", **_DEPLOYMENT},
    "k8s_scale_deployment": {"namespace": "development", **_DEPLOYMENT, "replicas": 0},
    "k8s_restart_deployment": {"namespace": "development", **_DEPLOYMENT},
    "monitoring_query_metrics": {"query": "up"},
    "monitoring_list_metrics": {},
    "monitoring_get_alerts": {},
    "monitoring_health_check": {"service": "web"},
    "monitoring_create_dashboard": {"title": "attack", "panels": ["up"]},
}
_DENIED_TO = {
    VIEWER: (
        "cmdb_update_asset_status",
        "k8s_scale_deployment",
        "k8s_restart_deployment",
        "k8s_get_nodes",
        "monitoring_create_dashboard",
    ),
    OPERATOR: ("k8s_restart_deployment", "k8s_get_nodes"),
}
# Each looks like a role that may do everything.
_LOOK_ALIKES = (
    *("mcp:admin ", " mcp:admin", "MCP:ADMIN", "Mcp:Admin", "mcp\uff1aadmin"),
    *(
        "mcp:\u0430dmin",
        "mcp:*",
        "*",
        "mcp:admin,mcp:viewer",
        "mcp",
        "admin",
        "root",
        "",
        "mcp:admin/",
    ),
    *("mcp:viewer mcp:admin", "data.config.roles", "__proto__", "mcp:admin;", '"mcp:admin"'),
)
_ENUMERATED = (
    ("a tool", "tools/call", {"name": "k8s_restart_deployment"}, {"name": "k8s_delete_cluster"}),
)


def _vertical() -> Iterator[Attack]:
    for role, tools in _DENIED_TO.items():
        for tool in tools:
            yield Attack(
                f"{role} calls {tool} over REST",
                _ROLE,
                execute(tool, _CALLS[tool], by=as_(role)),
                _HIDDEN,
            )
            for era in ERAS:
                call = message(
                    "tools/call", {"name": tool, "arguments": _CALLS[tool]}, era=era, by=as_(role)
                )
                yield Attack(
                    f"{role} calls {tool} over MCP {era}",
                    _ROLE,
                    call,
                    Answer(200, "forbidden", "not_available"),
                )
    for tool, arguments in _CALLS.items():
        yield Attack(f"no role calls {tool}", _ROLE, execute(tool, arguments, by=as_()), _HIDDEN)
    for role in _LOOK_ALIKES:
        call = execute("k8s_restart_deployment", _CALLS["k8s_restart_deployment"], by=as_(role))
        yield Attack(f"the role {role!r}", _EXACT, call, _HIDDEN)


def _namespaces() -> Iterator[Attack]:
    invalid = Answer(400, "invalid_arguments")
    elsewhere = Answer(403, "forbidden", "namespace_not_available")
    for role, namespaces in {
        VIEWER: ("production", "staging", "default", "kube-system"),
        OPERATOR: ("production", "default", "kube-system", "stagin", "staging2"),
    }.items():
        for namespace in namespaces:
            call = execute("k8s_get_pods", {"namespace": namespace}, by=as_(role))
            yield Attack(f"{role} reads {namespace}", _NAMESPACE, call, elsewhere)
    for namespace in ("production", "default", "kube-system"):
        arguments = {**_CALLS["k8s_scale_deployment"], "namespace": namespace}
        call = execute("k8s_scale_deployment", arguments, by=as_(OPERATOR))
        yield Attack(f"{OPERATOR} scales in {namespace}", _NAMESPACE, call, elsewhere)
    for role in (VIEWER, OPERATOR):
        for tool in ("k8s_get_pods", "k8s_get_deployments", "k8s_get_events"):
            call = execute(tool, {"all_namespaces": True}, by=as_(role))
            because = "only roles for the whole cluster read all namespaces"
            yield Attack(
                f"{role} reads all namespaces by {tool}",
                because,
                call,
                Answer(403, "forbidden", "cluster_wide_not_allowed"),
            )
    for namespace in (
        *(
            "development ",
            "Development",
            "DEVELOPMENT",
            "development\n",
            "development\0",
            "*",
            "",
            ".",
        ),
        *(
            "../production",
            "development/../production",
            "development,production",
            "development|production",
        ),
        *("d\u00e9veloppement", "development%2f", "development?fieldSelector=x", "-", "a" * 64),
    ):
        call = execute("k8s_get_pods", {"namespace": namespace}, by=as_(VIEWER))
        yield Attack(
            f"the namespace {namespace[:30]!r}",
            "the policy decides about a name of Kubernetes",
            call,
            invalid,
        )
    for value in (["development"], {"$ne": ""}, 1, True):
        call = execute("k8s_get_pods", {"namespace": value}, by=as_(VIEWER))
        yield Attack(f"the namespace {value!r}", "a namespace is a text", call, invalid)


def _tenants() -> Iterator[Attack]:
    because = "a tenant sees its own assets only"
    other = as_(ADMIN, tenant="acme")
    refused = Answer(422, "tool_error")
    for tool, arguments in (
        ("cmdb_get_service_topology", {"service_name": "db1"}),
        ("cmdb_get_change_records", {"asset_id": "db1"}),
        ("cmdb_update_asset_status", _CALLS["cmdb_update_asset_status"]),
    ):
        yield Attack(
            f"another tenant's asset by {tool}",
            because,
            execute(tool, arguments, by=other),
            refused,
        )
    for name in ("tenant", "tenant_id", "user", "roles", "subject", "_meta", "context"):
        call = execute("cmdb_query_assets", {name: "default"}, by=other)
        yield Attack(
            f"an argument {name}",
            "who calls is told by the token alone",
            call,
            Answer(400, "invalid_arguments"),
        )
    for tenant in ("default ", "DEFAULT", "default'--", "*", "%"):
        call = execute(
            "cmdb_get_service_topology", {"service_name": "db1"}, by=as_(ADMIN, tenant=tenant)
        )
        yield Attack(f"the tenant {tenant!r}", because, call, refused)


def _oracles() -> Iterator[Attack]:
    because = "an answer does not tell whether something hidden exists"
    for what, method, hidden, absent in _ENUMERATED:
        for era in ERAS:
            for name, params in (("hidden", hidden), ("absent", absent)):
                request = message(method, params, era=era, by=as_(VIEWER))
                yield Attack(
                    f"{what} that is {name}, MCP {era}",
                    because,
                    request,
                    Answer(200, "forbidden", "not_available"),
                )
    for name in (
        "k8s_restart_deployment",
        "k8s_delete_cluster",
        "k8s:restart_deployment",
        "k8s_get_nodes",
        "K8S_GET_PODS",
    ):
        yield Attack(
            f"POST /tools/{name}/execute", because, execute(name, {}, by=as_(VIEWER)), _HIDDEN
        )
    for prompt in ("absent", "../x", ""):
        request = message("prompts/get", {"name": prompt}, by=as_(VIEWER))
        yield Attack(
            f"the prompt {prompt!r}",
            because,
            request,
            Answer(200, "invalid_params", "not_available"),
        )


def _cursors() -> Iterator[Attack]:
    because = "a cursor is encrypted and bound to its list"
    for cursor in ("0", "AAAA", "eyJxdWVyeSI6IiJ9", "' OR 1=1 --", "x" * 8192, "\u0000"):
        call = execute("cmdb_query_assets", {"cursor": cursor}, by=as_(VIEWER))
        yield Attack(f"the cursor {cursor[:12]!r}", because, call, Answer(400, "invalid_arguments"))
    for cursor in ("0", "-1", "AAAA"):
        request = message("tools/list", {"cursor": cursor}, by=as_(VIEWER))
        yield Attack(
            f"the cursor {cursor!r} of tools/list", because, request, Answer(200, "invalid_params")
        )


def attacks() -> Iterator[Attack]:
    """Yield the attacks on authorization."""
    yield from _vertical()
    yield from _namespaces()
    yield from _tenants()
    yield from _oracles()
    yield from _cursors()
