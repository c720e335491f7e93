"""Which alerts wait for others: rules, labels and inhibitions of roles/prometheus in real servers."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from tests.integration.servers import Alertmanager, Prometheus
from tests.plays import ROOT

_TEMPLATES = ROOT / "roles/prometheus/templates/etc/prometheus"
# Nothing listens there. 127.0.0.1 is a host of which something answers: Prometheus itself.
_TARGETS = {
    "node": ["127.0.0.1:9", "127.0.0.2:9"],
    "mcp-server": ["127.0.0.2:10"],
}
_OF_ALL = [
    {"alert": "McpServersNotReady", "expr": "vector(1)", "labels": {"severity": "critical"}},
    {"alert": "McpManyDenials", "expr": "vector(1)", "labels": {"severity": "warning"}},
]
_OF_ONE = [
    {
        "alert": "UnitFailed",
        "expr": "vector(1)",
        "labels": {"severity": "warning", "instance": instance},
    }
    for instance in ("127.0.0.2:9", "127.0.0.1:9", "127.0.0.1:9464")
]


def rules() -> list[dict[str, Any]]:
    """Return the rules of the role that look at targets, without the time that they wait."""
    environment = jinja2.Environment(
        variable_start_string="[[", variable_end_string="]]", autoescape=False
    )
    environment.filters["comment"] = lambda _text: ""
    text = (_TEMPLATES / "rules/enterprise-mcp.yml.j2").read_text().partition("\n")[2]
    defaults = yaml.safe_load((ROOT / "roles/prometheus/defaults/main.yml").read_text())
    groups = yaml.safe_load(environment.from_string(text).render(defaults))["groups"]
    return [
        {name: value for name, value in rule.items() if name != "for"}
        for group in groups
        for rule in group["rules"]
        if rule["alert"] in ("HostDown", "TargetDown")
    ]


def part(file: str, begin: str, end: str) -> Any:
    """Return what a template writes under a key that ends where another line begins."""
    text = (_TEMPLATES / file).read_text()
    return yaml.safe_load(text[text.index(begin) : text.index(end)])


@pytest.fixture(scope="module")
def manager(workspace: Path) -> Iterator[Alertmanager]:
    inhibitions = part("alertmanager.yml.j2", "inhibit_rules:", "\nreceivers:")["inhibit_rules"]
    relabel = part("prometheus.yml.j2", "  alert_relabel_configs:", "  alertmanagers:")
    manager = Alertmanager(workspace / "inhibiting-alertmanager", inhibit_rules=inhibitions)
    prometheus = Prometheus(
        workspace / "inhibiting-prometheus",
        manager,
        rules=[*rules(), *_OF_ALL, *_OF_ONE],
        relabel=relabel["alert_relabel_configs"],
        jobs=[
            {"job_name": job, "static_configs": [{"targets": targets}]}
            for job, targets in _TARGETS.items()
        ],
    )
    manager.start()
    prometheus.start()
    yield manager
    prometheus.stop()
    manager.stop()


def states(manager: Alertmanager) -> dict[tuple[str, str], str]:
    """Return the state of each alert, by its name and where it is."""
    with urllib.request.urlopen(f"{manager.url}/api/v2/alerts", timeout=5) as answer:
        alerts = json.load(answer)
    return {
        (
            alert["labels"]["alertname"],
            alert["labels"].get("instance", alert["labels"].get("host", "")),
        ): alert["status"]["state"]
        for alert in alerts
    }


def test_a_host_that_is_down_is_told_once_and_others_hide_nothing(manager: Alertmanager) -> None:
    expected = {
        ("HostDown", "127.0.0.2"): "active",
        ("TargetDown", "127.0.0.2:9"): "suppressed",
        ("TargetDown", "127.0.0.2:10"): "suppressed",
        ("UnitFailed", "127.0.0.2:9"): "suppressed",
        # Of a host on which something else answers.
        ("TargetDown", "127.0.0.1:9"): "active",
        ("UnitFailed", "127.0.0.1:9"): "suppressed",
        ("UnitFailed", "127.0.0.1:9464"): "active",
        # Of no host: neither is hidden by the other, or by those of hosts.
        ("McpServersNotReady", ""): "active",
        ("McpManyDenials", ""): "active",
    }

    deadline = time.monotonic() + 60
    while (found := states(manager)) != expected and time.monotonic() < deadline:
        time.sleep(0.5)

    assert found == expected
