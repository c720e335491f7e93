"""The tool `monitoring:create_dashboard`, which creates or replaces a dashboard of Grafana."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from mcp_server.settings import GrafanaSettings
from mcp_server.tools.catalog import Arguments, Result, Tool, ToolContext, ToolError
from mcp_server.tools.deadline import remaining
from mcp_server.tools.gather import gather_or_cancel
from mcp_server.tools.monitoring.grafana import (
    REVEALED_BY,
    VERIFY_HINT,
    Folder,
    Grafana,
    StoredDashboard,
)
from mcp_server.tools.monitoring.panels import Panel, dashboard_model
from mcp_server.tools.monitoring.prometheus import Prometheus, QueryRefused
from mcp_server.tools.validation import not_blank

__all__ = ["create_dashboard"]

_MAX_TITLE = 200
_MOST_PANELS = 40
# Users can find the dashboards of this server by this tag.
_TAG = "enterprise-mcp"
_QUERIES_AT_ONCE = 8
# Maximum seconds for checking queries; the rest of the call's 30 seconds is for requests to Grafana.
_CHECKED_WITHIN_S = 18.0
# Grafana replaces these variables when it shows a panel; any duration shows whether the query is valid.
_VARIABLES = re.compile(
    r"\$(?:__(rate_interval|interval|range)\b|\{__(rate_interval|interval|range)\})"
)


class CreateDashboardArguments(Arguments):
    """Arguments of `create_dashboard`."""

    title: Annotated[
        str,
        Field(description="Unique in its folder", max_length=_MAX_TITLE),
        AfterValidator(not_blank),
    ]
    panels: Annotated[
        list[Panel],
        Field(
            description="A string is a panel with only a query",
            min_length=1,
            max_length=_MOST_PANELS,
        ),
    ]
    folder: Annotated[
        str | None, Field(max_length=_MAX_TITLE, description="uid or title of the folder")
    ] = None
    replace_uid: Annotated[str | None, Field(max_length=40, description="Dashboard to replace")] = (
        None
    )
    expected_version: Annotated[
        int | None, Field(ge=0, description="Current version of replace_uid")
    ] = None

    @model_validator(mode="after")
    def _replaces_or_not(self) -> Self:
        if self.replace_uid is None:
            if self.expected_version is not None:
                raise ValueError("expected_version belongs to replace_uid; give both or neither")
        elif self.expected_version is None:
            reading = f"read enterprise://monitoring/dashboards/{self.replace_uid}"
            raise ValueError(f"replace_uid needs expected_version: {reading} and give its version")
        elif self.folder is not None:
            raise ValueError(
                "folder: a dashboard that is replaced stays in its folder; leave it out"
            )
        return self


class CreateDashboardResult(Result):
    """The saved dashboard."""

    uid: str
    url: str
    version: int
    warnings: tuple[str, ...] = ()


def create_dashboard(
    settings: GrafanaSettings, grafana: Grafana, prometheus: Prometheus
) -> Tool[CreateDashboardArguments, CreateDashboardResult]:
    """Return the declaration of `monitoring:create_dashboard`.

    Args:
        prometheus: the Prometheus of the other tools; it checks the queries of the panels.
    """
    return Tool(
        name="monitoring:create_dashboard",
        title="Create dashboard",
        description="Create a Grafana dashboard, or replace one (replace_uid).",
        permission="tools:execute",
        arguments=CreateDashboardArguments,
        result=CreateDashboardResult,
        run=partial(_run, settings, grafana, prometheus),
        render=_render,
        read_only=False,
        destructive=True,
        idempotent=False,
        verify_hint=VERIFY_HINT,
        source="Grafana",
        revealed_by=REVEALED_BY,
        timeout_s=30.0,
    )


async def _run(
    settings: GrafanaSettings,
    grafana: Grafana,
    prometheus: Prometheus,
    arguments: CreateDashboardArguments,
    context: ToolContext,
) -> CreateDashboardResult:
    title = arguments.title.strip()
    given_s = remaining(_CHECKED_WITHIN_S)
    try:
        async with asyncio.timeout(given_s):
            warnings = await _check(prometheus, arguments.panels)
    except TimeoutError:
        raise ToolError(
            "Nothing was saved: Prometheus did not answer all queries within "
            f"{round(given_s, 1):g} s. Give fewer panels, or queries that are cheaper",
            retryable=True,
        ) from None
    replaced = await _replaced(grafana, arguments, context)
    if replaced is not None:
        folder = replaced.folder
    else:
        name = arguments.folder or settings.folder
        folder = None if name is None else await grafana.folder(name, context)
    await _require_free_title(grafana, title, folder, replaced, context)
    saved = await grafana.save(
        dashboard_model(
            title,
            arguments.panels,
            tags=_tags(replaced),
            datasource_uid=settings.datasource_uid,
            replaces=None if replaced is None else (replaced.uid, replaced.version),
        ),
        folder=folder,
        message=f"by {context.user} through the MCP server",
    )
    return CreateDashboardResult(
        uid=saved.uid, url=saved.url, version=saved.version, warnings=tuple(warnings)
    )


async def _check(prometheus: Prometheus, panels: Sequence[Panel]) -> list[str]:
    """Return warnings about valid queries.

    Raises:
        ToolError: the message names every panel with an invalid query.
    """
    turns = asyncio.Semaphore(_QUERIES_AT_ONCE)

    async def fault_or_warning(number: int, panel: Panel) -> tuple[str | None, str | None]:
        which = f"panel {number} ({panel.heading[:60]!r})"
        async with turns:
            try:
                answer = await prometheus.query(_VARIABLES.sub("5m", panel.query))
            except QueryRefused as refusal:
                return f"{which}: {refusal.reason}", None
        if answer.kind not in ("vector", "scalar"):
            return f"{which}: its result is a {answer.kind}; a panel shows vectors", None
        return None, None if answer.series else f"{which} has no data now"

    checked = await gather_or_cancel(
        *(fault_or_warning(number, panel) for number, panel in enumerate(panels, start=1))
    )
    faults = [fault for fault, _ in checked if fault]
    if faults:
        raise ToolError("Nothing was saved. Prometheus refused: " + "; ".join(faults))
    return [warning for _, warning in checked if warning]


async def _replaced(
    grafana: Grafana, arguments: CreateDashboardArguments, context: ToolContext
) -> StoredDashboard | None:
    if arguments.replace_uid is None:
        return None
    stored = await grafana.dashboard(arguments.replace_uid)
    if stored is None:
        raise ToolError(f"replace_uid: Grafana has no dashboard {arguments.replace_uid!r}")
    if stored.version != arguments.expected_version:
        version = context.masked_value(stored.version, "version")
        raise ToolError(
            f"expected_version: the dashboard has version {version} and not "
            f"{arguments.expected_version}; someone changed it: read "
            f"enterprise://monitoring/dashboards/{arguments.replace_uid} and decide again"
        )
    return stored


async def _require_free_title(
    grafana: Grafana,
    title: str,
    folder: Folder | None,
    replaced: StoredDashboard | None,
    context: ToolContext,
) -> None:
    """Refuse a title that the folder already contains: newer Grafana accepts duplicates."""
    for taken in await grafana.find(title, folder):
        if replaced is None or taken.uid != replaced.uid:
            where = "at the root"
            if folder is not None:
                where = f"in the folder {context.masked_value(folder.title, 'folder')!r}"
            found = context.masked_value(f"uid {taken.uid}, {taken.url}", "uid", "url")
            raise ToolError(
                f"title: a dashboard {title!r} exists {where} ({found}); "
                "choose another title, or replace it with replace_uid and expected_version"
            )


def _tags(replaced: StoredDashboard | None) -> list[str]:
    return list(dict.fromkeys([*(replaced.tags if replaced else ()), _TAG]))


def _render(result: Mapping[str, Any]) -> str:
    saved = f"Saved as {result['uid']}, version {result['version']}: {result['url']}"
    warnings = result["warnings"]
    if not isinstance(warnings, list):
        warnings = [warnings]
    return "\n".join([saved, *(f"warning: {each}" for each in warnings)])
