"""Prometheus and Alertmanager: who may ask, what is watched, which alerts there are."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.deploy.installation import Host, Installation
from tests.plays import ROOT

testinfra_hosts = ["ansible://monitoring"]

_TLS = "/etc/enterprise-mcp/tls"
_RULES = Path(__file__).with_name("alerts.test.yml")
# Every metric that an alert looks at, with the labels it relies on.
_METRICS = [
    "mcp_ready",
    "mcp_sign_ins_total",
    "mcp_decisions_total{entry='authorize'}",
    "mcp_request_seconds_bucket",
    "mcp_policy_revision_info",
    "up",
    "node_systemd_unit_state{state='failed'}",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "node_filesystem_readonly",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "node_textfile_mtime_seconds",
    "enterprise_mcp_certificate_not_after_seconds",
    "prometheus_config_last_reload_successful",
    "alertmanager_config_last_reload_successful",
    "prometheus_notifications_dropped_total",
    "alertmanager_notifications_failed_total",
    "prometheus_rule_evaluation_failures_total",
]


# argv: URL, and the folder of a certificate or "".
_GET = """
import ssl, sys, urllib.error, urllib.request
url, leaf = sys.argv[1], sys.argv[2]
context = ssl.create_default_context(cafile="/etc/enterprise-mcp/tls/ca.pem")
if leaf:
    context.load_cert_chain(f"{leaf}/cert.pem", f"{leaf}/key.pem")
try:
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code} {error.read().decode()}")
"""


def _get(host: Host, url: str, leaf: str = f"{_TLS}/prometheus") -> str:
    return host.run(f"python3 - {shlex.join([url, leaf])}", stdin=_GET.encode())


def _may_ask(host: Host, url: str, leaf: str) -> bool:
    done = host.attempt(f"python3 - {shlex.join([url, leaf])}", stdin=_GET.encode())
    return done.returncode == 0


def _api(me: Host, path: str) -> Any:
    return json.loads(_get(me, f"https://{me.fqdn}:9090/api/v1/{path}"))["data"]


def _query(me: Host, query: str) -> list[Any]:
    found: list[Any] = _api(me, f"query?query={quote(query)}")["result"]
    return found


@pytest.mark.parametrize("port", [9090, 9093])
def test_a_client_without_a_certificate_is_refused(me: Host, port: int) -> None:
    assert not _may_ask(me, f"https://{me.fqdn}:{port}/-/ready", "")


@pytest.mark.compares_names
@pytest.mark.parametrize("port", [9090, 9093])
def test_a_certificate_of_another_purpose_is_refused(me: Host, port: int) -> None:
    assert not _may_ask(me, f"https://{me.fqdn}:{port}/-/ready", f"{_TLS}/node-exporter")
    assert not _may_ask(me, f"https://{me.fqdn}:{port}/-/ready", f"{_TLS}/alertmanager")


@pytest.mark.parametrize("port", [9090, 9093])
def test_the_servers_may_ask(me: Host, installation: Installation, port: int) -> None:
    for server in installation.members("mcp_servers"):
        assert _may_ask(server, f"https://{me.fqdn}:{port}/-/ready", f"{_TLS}/mcp-server")


def test_node_exporters_answer_prometheus(me: Host, installation: Installation) -> None:
    for host in installation.hosts.values():
        url = f"https://{host.fqdn}:9100/metrics"
        assert _may_ask(me, url, f"{_TLS}/prometheus"), host.name
        assert not _may_ask(me, url, ""), host.name


@pytest.mark.compares_names
def test_node_exporters_answer_nobody_else(me: Host, installation: Installation) -> None:
    for host in installation.hosts.values():
        url = f"https://{host.fqdn}:9100/metrics"
        assert not _may_ask(me, url, f"{_TLS}/alertmanager"), host.name
        assert not _may_ask(host, url, f"{_TLS}/node-exporter"), host.name


def test_every_target_is_up_and_there_is_no_other(me: Host, installation: Installation) -> None:
    up = {(t["metric"]["job"], t["metric"]["instance"]): t["value"][1] for t in _query(me, "up")}

    expected = {("prometheus", f"{me.fqdn}:9090"), ("alertmanager", f"{me.fqdn}:9093")}
    expected |= {("node", f"{host.fqdn}:9100") for host in installation.hosts.values()}
    expected |= {("mcp-server", f"{h.fqdn}:9464") for h in installation.members("mcp_servers")}
    assert up == dict.fromkeys(expected, "1")


def test_alerts_go_to_the_alertmanager(me: Host) -> None:
    managers = _api(me, "alertmanagers")

    assert [m["url"] for m in managers["activeAlertmanagers"]] == [
        f"https://{me.fqdn}:9093/api/v2/alerts"
    ]
    assert managers["droppedAlertmanagers"] == []


def test_rules_can_be_evaluated(me: Host) -> None:
    groups = _api(me, "rules")["groups"]

    rules = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert rules
    assert {name: health for name, health in rules.items() if health == "err"} == {}


def test_rules_look_at_metrics_that_exist(me: Host) -> None:
    assert [metric for metric in _METRICS if not _query(me, f"count({metric})")] == []


def test_rules_fire_when_they_should(me: Host) -> None:
    """promtool's own tests of rules, with the rules as they are on the host."""
    me.run("install -d -m 0700 /run/alerts-test")
    try:
        me.run("cat >/run/alerts-test/alerts.test.yml", stdin=_RULES.read_bytes())
        done = me.attempt("cd /run/alerts-test && promtool test rules alerts.test.yml")
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
    finally:
        me.run("rm -r /run/alerts-test")


def test_the_end_of_every_certificate_is_watched(me: Host, installation: Installation) -> None:
    for host in installation.hosts.values():
        host.systemctl("start", "enterprise-mcp-certificate-metrics.service")
        files = host.run(f"ls {_TLS}/ca.pem {_TLS}/*/cert.pem").split()
        metrics = _get(me, f"https://{host.fqdn}:9100/metrics")
        watched = {
            line.split('"')[1]
            for line in metrics.splitlines()
            if line.startswith("enterprise_mcp_certificate_not_after_seconds{")
        }
        assert watched == set(files), host.name


def test_configurations_are_valid(me: Host) -> None:
    me.run("promtool check config /etc/prometheus/prometheus.yml")
    me.run("promtool check web-config /etc/prometheus/prometheus-web.yml")
    me.run("amtool check-config /etc/prometheus/alertmanager.yml")


def test_nobody_can_stop_it_through_its_api(me: Host) -> None:
    flags = _api(me, "status/flags")

    assert flags["web.enable-lifecycle"] == "false"
    assert flags["web.enable-admin-api"] == "false"


_DASHBOARDS = sorted((ROOT / "docs/dashboards").glob("*.yaml"))


@pytest.mark.cluster
@pytest.mark.parametrize("path", _DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_has_data(path: Path, me: Host) -> None:
    panels = yaml.safe_load(path.read_text())["panels"]
    # As Grafana replaces it; an hour, so that the calls of the tests before this one are within it.
    queries = [panel["query"].replace("$__rate_interval", "1h") for panel in panels]

    answers = [_query(me, query) for query in queries]

    assert [query for query, found in zip(queries, answers, strict=True) if not found] == []
