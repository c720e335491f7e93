"""Panels as a caller describes them, and the dashboard that Grafana's SDK builds from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from grafana_foundation_sdk.builders import bargauge, gauge, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, GridPos
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from mcp_server.tools.catalog import Arguments

__all__ = ["Panel", "dashboard_model"]

Kind = Literal["timeseries", "stat", "gauge", "bargauge", "table"]

_WIDTH = 24
_MAX_TITLE = 200
# Width (of 24 columns) and height of each kind of panel.
_SIZES = {
    "timeseries": (12, 8),
    "stat": (6, 4),
    "gauge": (6, 6),
    "bargauge": (12, 8),
    "table": (24, 8),
}
_Builder = timeseries.Panel | stat.Panel | gauge.Panel | bargauge.Panel | table.Panel
_BUILDERS: dict[str, type[_Builder]] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "gauge": gauge.Panel,
    "bargauge": bargauge.Panel,
    "table": table.Panel,
}


class Panel(Arguments):
    """One query and how to show it; a text is equivalent to a panel with only a query."""

    query: Annotated[str, Field(min_length=1, max_length=4096, description="PromQL")]
    title: Annotated[str | None, Field(description="Default: the query", max_length=_MAX_TITLE)] = (
        None
    )
    unit: Annotated[
        str | None,
        Field(max_length=64, description="Unit of Grafana: s, bytes, percentunit, reqps"),
    ] = None
    type: Annotated[Kind, Field(description="Visualization")] = "timeseries"

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"query": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        panel = handler.resolve_ref_schema(handler(core_schema))
        panel.pop("description", None)
        return {"anyOf": [panel, {"type": "string"}]}

    @property
    def heading(self) -> str:
        """The title; without a title, the query."""
        return (self.title or self.query)[:_MAX_TITLE]


def dashboard_model(
    title: str,
    panels: Sequence[Panel],
    *,
    tags: Sequence[str],
    datasource_uid: str,
    replaces: tuple[str, int] | None,
) -> dict[str, Any]:
    """Return a dashboard in Grafana's JSON.

    Args:
        panels: laid out from left to right, then down.
        datasource_uid: uid of the Prometheus data source in Grafana.
        replaces: uid and version of the dashboard to replace.
    """
    datasource = DataSourceRef(type_val="prometheus", uid=datasource_uid)
    builder = Dashboard(title).tags(list(tags)).editable().time("now-6h", "now").refresh("1m")
    if replaces is not None:
        builder = builder.uid(replaces[0]).version(replaces[1])
    x = y = row_height = 0
    for number, panel in enumerate(panels, start=1):
        width, height = _SIZES[panel.type]
        if x + width > _WIDTH:
            x, y, row_height = 0, y + row_height, 0
        built = (
            _BUILDERS[panel.type]()
            .id(number)
            .title(panel.heading)
            .datasource(datasource)
            .grid_pos(GridPos(h=height, w=width, x=x, y=y))
            .with_target(_target(panel, datasource))
        )
        builder = builder.with_panel(built if panel.unit is None else built.unit(panel.unit))
        x, row_height = x + width, max(row_height, height)
    # Only the encoder of the SDK converts its objects to JSON.
    model: dict[str, Any] = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    return model


def _target(panel: Panel, datasource: DataSourceRef) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .expr(panel.query)
        .ref_id("A")
        .datasource(datasource)
        .legend_format("__auto")
    )
    if panel.type in ("timeseries", "stat"):
        return target.range()
    target = target.instant()
    return target.format(PromQueryFormat.TABLE) if panel.type == "table" else target
