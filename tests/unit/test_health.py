"""What `health_check` makes of each source's answer, without the sources."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mcp_server.tools.catalog import ToolContext
from mcp_server.tools.monitoring.alerts import Alert
from mcp_server.tools.monitoring.health_check import (
    Evidence,
    HealthCheckArguments,
    Verdict,
    _is_about,
    _judged_alerts,
    _judged_targets,
    _judged_workloads,
    worst,
)
from mcp_server.tools.monitoring.prometheus import TimeSeries
from mcp_server.tools.workloads import ServiceHealth, Workload

CONTEXT = ToolContext(user="alice", tenant="default")


def alert(name: str = "A", *, severity: str = "", state: str = "firing", **labels: str) -> Alert:
    return Alert(
        name=name,
        severity=severity,
        instance="",
        summary="",
        active_since=datetime(2026, 1, 1, tzinfo=UTC),
        state=state,
        labels=labels,
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["healthy", "healthy"], "healthy"),
        (["healthy", "unknown"], "unknown"),
        (["unknown", "degraded", "healthy"], "degraded"),
        (["degraded", "unhealthy", "unknown"], "unhealthy"),
        ([], "unknown"),
    ],
)
def test_the_worst_evidence_is_the_verdict(verdicts: list[Verdict], expected: str) -> None:
    assert worst([Evidence(source="s", verdict=v, says="") for v in verdicts]) == expected


@pytest.mark.parametrize(
    ("desired", "ready", "problem", "endpoints", "expected"),
    [
        (2, 2, None, (2, 0), ["healthy", "healthy"]),
        (2, 1, None, (1, 1), ["degraded", "degraded"]),
        (2, 0, None, (0, 2), ["unhealthy", "unhealthy"]),
        (2, 2, "the rollout hangs", (2, 0), ["degraded", "healthy"]),
        (0, 0, None, (0, 0), ["degraded", "unhealthy"]),
        (2, 2, None, (None, None), ["healthy", "healthy"]),
    ],
)
def test_workloads_and_endpoints_are_judged(
    desired: int,
    ready: int,
    problem: str | None,
    endpoints: tuple[int | None, int | None],
    expected: list[str],
) -> None:
    found = ServiceHealth(
        cluster="c",
        namespace="n",
        workloads=[
            Workload(kind="Deployment", name="w", desired=desired, ready=ready, problem=problem)
        ],
        endpoints_ready=endpoints[0],
        endpoints_not_ready=endpoints[1],
    )

    evidence = list(_judged_workloads(found, "w", CONTEXT))

    assert [each.verdict for each in evidence] == expected
    assert f"{ready} of {desired} ready" in evidence[0].says
    assert (problem or "") in evidence[0].says


def test_a_service_that_the_cluster_does_not_have_is_unknown() -> None:
    found = ServiceHealth(
        cluster="c", namespace="n", workloads=[], endpoints_ready=None, endpoints_not_ready=None
    )

    (evidence,) = _judged_workloads(found, "w", CONTEXT)

    assert evidence.verdict == "unknown"
    assert "no workload and no Service called w in the namespace n" in evidence.says


def test_what_was_not_seen_is_evidence_and_no_verdict_of_its_own() -> None:
    found = ServiceHealth(
        cluster="c",
        namespace="n",
        workloads=[Workload(kind="Deployment", name="w", desired=2, ready=2)],
        endpoints_ready=None,
        endpoints_not_ready=None,
        endpoints_checked=False,
        not_checked=("its endpoints: not allowed",),
    )
    nothing = found.model_copy(update={"workloads": []})

    assert [(each.verdict, each.says) for each in _judged_workloads(found, "w", CONTEXT)] == [
        ("unknown", "not checked: its endpoints: not allowed"),
        ("healthy", "Deployment w: 2 of 2 ready"),
    ]
    assert [each.says for each in _judged_workloads(nothing, "w", CONTEXT)] == [
        "not checked: its endpoints: not allowed"
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], "unknown"), ([1, 1], "healthy"), ([1, 0], "degraded"), ([0, 0], "unhealthy")],
)
def test_scrape_targets_are_judged(values: list[float], expected: str) -> None:
    series = [TimeSeries({"instance": f"i{n}"}, ((1.0, v),), 0) for n, v in enumerate(values)]

    assert _judged_targets(series, CONTEXT).verdict == expected


@pytest.mark.parametrize(
    ("alerts", "expected", "said"),
    [
        ([], "healthy", "none"),
        ([alert(severity="info")], "healthy", "1 firing: A"),
        ([alert()], "degraded", "1 firing: A"),
        ([alert(severity="warning"), alert("B", severity="critical")], "unhealthy", "2 firing"),
        ([alert(severity="critical", state="silenced")], "healthy", "1 silenced: A"),
        ([alert(severity="critical", state="pending")], "healthy", "1 pending: A"),
        ([alert(str(n), severity="warning") for n in range(9)], "degraded", "and 4 more"),
    ],
)
def test_alerts_are_judged(alerts: list[Alert], expected: str, said: str) -> None:
    evidence = _judged_alerts(alerts, CONTEXT)

    assert evidence.verdict == expected
    assert said in evidence.says


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"job": "shop"}, True),
        ({"deployment": "shop", "namespace": "n"}, True),
        ({"deployment": "shop", "namespace": "other"}, False),
        ({"job": "n/shop"}, True),
        ({"job": "shopping"}, False),
        ({"instance": "shop"}, False),
        ({"job": "shop", "cluster": "c"}, True),
        ({"job": "shop", "cluster": "other"}, False),
        ({"job": "n/shop", "cluster": "other"}, False),
    ],
)
def test_an_alert_is_about_the_service_that_its_labels_name(
    labels: dict[str, str], expected: bool
) -> None:
    arguments = HealthCheckArguments(service="shop", namespace="n")

    assert _is_about(alert(**labels), arguments, "c") is expected


def test_where_no_cluster_is_meant_an_alert_of_any_counts() -> None:
    arguments = HealthCheckArguments(service="shop", namespace="n")

    assert _is_about(alert(job="shop", cluster="other"), arguments, None)
