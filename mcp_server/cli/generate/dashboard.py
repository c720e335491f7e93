"""A dashboard in Grafana's JSON, from the arguments of `monitoring:create_dashboard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders.dashboard import DatasourceVariable
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from mcp_server.tools.monitoring.create_dashboard import CreateDashboardArguments
from mcp_server.tools.monitoring.panels import dashboard_model

__all__ = ["dashboard"]

# The reader chooses the data source on the dashboard, so that one file fits every Grafana.
_VARIABLE = "datasource"


def dashboard(source: Path) -> str:
    """Return the JSON of the dashboard that `source` (YAML) describes; its uid is from the file's name.

    Raises:
        pydantic.ValidationError: the file holds no arguments of the tool.
    """
    arguments = CreateDashboardArguments.model_validate(yaml.safe_load(source.read_text()))
    model = dashboard_model(
        arguments.title,
        arguments.panels,
        tags=["enterprise-mcp"],
        datasource_uid=f"${{{_VARIABLE}}}",
        replaces=None,
    )
    variable: dict[str, Any] = json.loads(
        json.dumps(
            DatasourceVariable(_VARIABLE).label("Data source").type("prometheus").build(),
            cls=JSONEncoder,
        )
    )
    model |= {"uid": f"enterprise-mcp-{source.stem}", "templating": {"list": [variable]}}
    return json.dumps(model, indent=2, sort_keys=True) + "\n"
