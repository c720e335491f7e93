"""Every alert has a runbook, and every runbook belongs to an alert."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_RUNBOOKS = _ROOT / "docs/runbooks"
_RULES = _ROOT / "roles/prometheus/templates/etc/prometheus/rules/enterprise-mcp.yml.j2"
_ALERTS = dict(
    re.findall(r"- alert: (\w+)\n(.*?)(?=\n      - alert: |\Z)", _RULES.read_text(), re.DOTALL)
)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert _ALERTS
    assert {path.stem for path in _RUNBOOKS.glob("*.md")} == set(_ALERTS)


@pytest.mark.parametrize("alert", _ALERTS)
def test_an_alert_links_its_runbook(alert: str) -> None:
    url = f"runbook_url: [[ prometheus_runbook_base_url ]]/{alert}.md\n"
    assert _ALERTS[alert].count(url) == 1


@pytest.mark.parametrize("alert", _ALERTS)
def test_a_runbook_says_what_it_means_what_it_does_where_to_look_and_what_to_do(alert: str) -> None:
    text = (_RUNBOOKS / f"{alert}.md").read_text()

    assert text.startswith(f"# {alert}\n\n")
    parts = re.findall(r"^(\*\*Effect:\*\*|## .*)", text, re.MULTILINE)
    assert parts == ["**Effect:**", "## Find the cause", "## Mend it"]
