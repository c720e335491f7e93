"""Measures how long a decision takes."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from policyctl.tree import PolicyTree

ENTRY_POINTS = ("authorize", "visible", "canary")
# A viewer calls a monitoring tool.
_INPUT: dict[str, Any] = {
    "version": 2,
    "subject": {
        "type": "user",
        "id": "alice",
        "properties": {
            "tenant": "default",
            "roles": ["mcp:viewer"],
            "groups": [],
            "scopes": [],
            "token_id": "",
            "issuer": "shared-secret",
            "client_id": "",
            "actor": "",
            "networks": [],
        },
    },
    "action": {"name": "tools/call", "properties": {"arguments": {}, "withheld": []}},
    "resource": {"type": "tool", "id": "monitoring:query_metrics", "properties": {}},
    "context": {
        "ip": "192.0.2.1",
        "time": "2026-01-07T12:00:00Z",
        "node": "bench",
        "request_id": "bench",
        "transport": "mcp",
        "counters": "up",
        "audit": "up",
    },
    "counts": [
        {
            "charge": {"id": "global", "key": "global", "limit": 1000, "window_s": 3600, "cost": 1},
            "count": 5,
            "reset_ms": 1000,
        },
        {
            "charge": {
                "id": "user",
                "key": "user:default:alice",
                "limit": 100,
                "window_s": 3600,
                "cost": 1,
            },
            "count": 5,
            "reset_ms": 1000,
        },
    ],
}


def bench(tree: PolicyTree) -> str:
    """Return a table: the fastest, median and 99th percentile time of each entry point, in ms."""
    rows = [f"{'entry point':<12}{'fastest':>12}{'median':>12}{'p99':>12}"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(_INPUT, file)
        file.flush()
        for name in ENTRY_POINTS:
            output = tree.opa_output(
                "The measurement fails",
                *("bench", "--metrics", "--optimize-store-for-read-speed", "--format", "json"),
                *("--input", file.name, "--ignore", "capabilities.json", "--data", "policies"),
                f"data.mcp.decision.{name}",
            )
            timer = "histogram_timer_rego_query_eval_ns_"
            extra = json.loads(output)["Extra"]
            row = [f"{extra[timer + part] / 1e6:.3f} ms" for part in ("min", "median", "99%")]
            rows.append(f"{name:<12}" + "".join(f"{cell:>12}" for cell in row))
    return "\n".join(rows)
