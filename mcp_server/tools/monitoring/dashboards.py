"""The resources with the dashboards of Grafana."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from mcp_server.tools.backend import parsing
from mcp_server.tools.catalog import ToolContext, ToolError
from mcp_server.tools.monitoring.grafana import REVEALED_BY, FoundDashboard, Grafana
from mcp_server.tools.resources import Resource, rows_that_fit

__all__ = ["dashboard_resources"]

_LISTED = 200
_COMPLETED = 5000


def dashboard_resources(grafana: Grafana) -> list[Resource]:
    """Return the declarations of the resources with the list of dashboards and with one dashboard."""
    return [
        Resource(
            uri="enterprise://monitoring/dashboards",
            name="monitoring-dashboards",
            title="Grafana dashboards",
            description=f"The first {_LISTED} dashboards of Grafana by title.",
            permission="tools:read",
            read=partial(_read_list, grafana),
            source="Grafana",
            revealed_by=REVEALED_BY,
        ),
        Resource(
            uri="enterprise://monitoring/dashboards/{uid}",
            name="monitoring-dashboard",
            title="A Grafana dashboard",
            description="A dashboard's version, and the queries of its panels.",
            permission="tools:read",
            read=partial(_read_one, grafana),
            source="Grafana",
            revealed_by=REVEALED_BY,
            complete=partial(_complete, grafana),
        ),
    ]


async def _read_list(grafana: Grafana, context: ToolContext, _: Mapping[str, str]) -> str:
    most = context.at_most(_LISTED)
    found = await grafana.dashboards(most + 1)
    rows = rows_that_fit(_row(each) for each in found[:most])
    return json.dumps({"dashboards": rows, "truncated": len(rows) < len(found)})


async def _read_one(grafana: Grafana, context: ToolContext, parameters: Mapping[str, str]) -> str:
    stored = await grafana.dashboard(parameters["uid"])
    if stored is None:
        raise ToolError("Grafana has no such dashboard")
    with parsing("Grafana"):
        panels = list(_panels(stored.model))
    shown = rows_that_fit(panels[: context.at_most(len(panels))])
    return json.dumps(
        {
            "uid": stored.uid,
            "title": stored.title,
            "folder": stored.folder.title if stored.folder else None,
            "url": stored.url,
            "tags": list(stored.tags),
            "version": stored.version,
            "panels": shown,
            "truncated": len(shown) < len(panels),
        }
    )


async def _complete(
    grafana: Grafana, _name: str, text: str, _given: Mapping[str, str], _context: ToolContext
) -> list[str]:
    found = await grafana.dashboards(_COMPLETED)
    return sorted(each.uid for each in found if each.uid.startswith(text))


def _row(found: FoundDashboard) -> dict[str, Any]:
    return {
        "uid": found.uid,
        "title": found.title,
        "folder": found.folder.title if found.folder else None,
        "url": found.url,
        "tags": list(found.tags),
    }


def _panels(model: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield the panels of any dashboard; a dashboard of a user may lack any field."""
    for panel in model.get("panels") or ():
        if panel.get("type") == "row":
            yield from _panels(panel)
            continue
        defaults = (panel.get("fieldConfig") or {}).get("defaults") or {}
        yield {
            "title": panel.get("title"),
            "type": panel.get("type"),
            "unit": defaults.get("unit"),
            "queries": [
                target["expr"] for target in panel.get("targets") or () if target.get("expr")
            ],
        }
