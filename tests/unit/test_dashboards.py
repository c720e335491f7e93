"""docs/dashboards: what Grafana imports is what the files beside it describe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mcp_server.cli.generate.dashboard import dashboard

_SOURCES = sorted((Path(__file__).resolve().parents[2] / "docs/dashboards").glob("*.yaml"))


@pytest.mark.parametrize("source", _SOURCES, ids=lambda source: source.stem)
def test_the_json_has_every_panel_and_lets_the_reader_choose_the_data_source(source: Path) -> None:
    described = yaml.safe_load(source.read_text())

    model = json.loads(source.with_suffix(".json").read_text())

    assert (model["uid"], model["title"]) == (f"enterprise-mcp-{source.stem}", described["title"])
    assert [panel["targets"][0]["expr"] for panel in model["panels"]] == [
        panel["query"] for panel in described["panels"]
    ]
    assert {panel["datasource"]["uid"] for panel in model["panels"]} == {"${datasource}"}
    (variable,) = model["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        *("datasource", "datasource", "prometheus"),
    )


def test_every_description_has_its_json() -> None:
    assert _SOURCES
    assert {path.stem for path in _SOURCES[0].parent.glob("*.json")} == {
        path.stem for path in _SOURCES
    }


def test_a_key_that_the_tool_does_not_have_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "wrong.yaml"
    source.write_text("title: x\npanels: [{query: up, colour: red}]\n")

    with pytest.raises(ValidationError, match=r"colour"):
        dashboard(source)
