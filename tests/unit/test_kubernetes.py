"""What the Kubernetes family decides without a cluster: settings, cursors, ages, and imports."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from mcp_server.settings import KubernetesSettings
from mcp_server.tools.catalog import InvalidArguments, ToolContext, ToolError
from mcp_server.tools.cursor import CursorCipher
from mcp_server.tools.kubernetes import service_health
from mcp_server.tools.kubernetes.age import age
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.kubernetes.lists import TableRow
from mcp_server.tools.kubernetes.logs import _Log
from mcp_server.tools.kubernetes.nodes import NODES
from mcp_server.tools.kubernetes.paging import Page, Position
from mcp_server.tools.kubernetes.pods import PodArguments
from mcp_server.tools.kubernetes.rollout import rollout_of
from mcp_server.tools.text import table

URL = {"url": "https://k8s.test", "token": {"file": "/token"}}
NOW = datetime(2026, 11, 25, tzinfo=UTC)
CIPHER = CursorCipher()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"clusters": {}}, "at least 1 item"),
        ({"clusters": {"a": {}}}, "exactly one of url, kubeconfig and in_cluster"),
        ({"clusters": {"a": {**URL, "in_cluster": True}}}, "exactly one of url"),
        ({"clusters": {"a": {**URL, "kubeconfig": "/k"}}}, "exactly one of url"),
        ({"clusters": {"a": {"kubeconfig": "/k", "ca": "/ca"}}}, "token and ca belong to url"),
        ({"clusters": {"a": {**URL, "url": "http://k8s.test"}}}, "must begin with https://"),
        ({"clusters": {"a": {"url": "https://k8s.test"}}}, "url needs a token"),
        ({"clusters": {"a": {**URL, "context": "c"}}}, "context belongs to kubeconfig"),
        ({"clusters": {"A": URL}}, "should match pattern"),
        ({"clusters": {"a": URL, "b": URL}}, "default must name one of: a, b"),
        ({"clusters": {"a": URL}, "default": "c"}, "default names no cluster c; known: a"),
        ({"clusters": {"a": URL}, "timeout_s": 0}, "greater than 0"),
    ],
)
def test_a_bad_combination_is_told_with_what_is_accepted(
    document: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        KubernetesSettings.model_validate(document)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain [31m \t text", "plain [31m \t text"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("pass\x1b[38;2;1;2;3mword", "password"),
        ("\x9b4mline", "line"),
        ("\x1b[2K\x1b(B\x1bMprogress", "progress"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://a.test\x1b\\link\x1b]8;;\x1b\\", "link"),
        # What does not end hides nothing.
        ("\x1b]0;no end", "0;no end"),
        ("\x1bPno end", "no end"),
        ("cut \x1b[31", "cut 31"),
        ("end\x1b", "end\x1b"),
    ],
)
def test_a_log_has_no_escape_sequences_and_all_of_its_text(line: str, shown: str) -> None:
    log = _Log(most=1, wanted="")

    log.feed(line.encode() + b"\n")
    log.end()

    assert list(log.newest) == [shown]
    assert log.coloured is (shown != line)


def test_a_single_cluster_is_the_default() -> None:
    assert KubernetesSettings.model_validate({"clusters": {"a": URL}}).default_cluster == "a"


def test_the_label_of_a_clusters_metrics_is_its_name_unless_told() -> None:
    clusters = {"a": URL, "b": {**URL, "metrics_cluster": "prod-b"}}
    kubernetes = Kubernetes(
        KubernetesSettings.model_validate({"clusters": clusters, "default": "b"})
    )

    context = ToolContext(user="alice", tenant="default")
    assert [kubernetes.metrics_cluster(name, context) for name in ("a", "b", None)] == [
        "a",
        "prod-b",
        "prod-b",
    ]
    with pytest.raises(InvalidArguments, match="known: a, b"):
        kubernetes.metrics_cluster("c", context)


def _family() -> Kubernetes:
    settings = {"clusters": {"a": URL, "b": URL}, "default": "b"}
    return Kubernetes(KubernetesSettings.model_validate(settings))


@pytest.mark.parametrize(("given", "judged"), [({}, "b"), ({"cluster": "a"}, "a")])
def test_the_policy_judges_the_cluster_that_is_meant_by_its_name(
    given: dict[str, str], judged: str
) -> None:
    needed = {"deployment": "web", "pod_name": "web-1", "replicas": 1}
    for tool in _family().tools():
        arguments = {
            name: value for name, value in needed.items() if name in tool.arguments.model_fields
        }
        parsed = tool.parse({**arguments, **given})

        assert tool.properties(parsed)["cluster"] == judged, tool.name
        assert parsed.model_dump()["cluster"] == judged, tool.name


def test_a_node_in_trouble_says_which_conditions_are_bad() -> None:
    ready = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    healthy = {"type": "DiskPressure", "status": "False", "reason": "KubeletHasNoDiskPressure"}
    pressure = {"type": "PIDPressure", "status": "True"}
    taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    cells = {"Name": "n1", "Status": "NotReady", "Roles": "<none>", "Version": "v1", "Age": "1d"}
    status = {"conditions": [ready, healthy, pressure], "capacity": {"cpu": "4"}}
    found = {"spec": {"taints": [taint]}, "status": status}

    node = NODES.row_of(TableRow(cells=cells, namespace="", object=found)).model_dump()

    assert node["conditions"] == [
        "Ready=Unknown (NodeStatusUnknown)",
        "PIDPressure=True (no reason)",
    ]
    assert node["taints"] == ["node.kubernetes.io/unreachable:NoExecute"]
    assert (node["capacity"], node["allocatable"]) == ({"cpu": "4"}, {})
    assert not node["unschedulable"]


def test_a_masked_field_of_a_node_hides_the_fields_that_reveal_it() -> None:
    (tool,) = (tool for tool in _family().tools() if tool.name == "k8s:get_nodes")

    assert tool.masked_names({"unschedulable"}) == {"unschedulable", "status", "taints"}


def test_a_list_in_a_table_is_written_with_commas() -> None:
    assert table([{"a": ["x=1", "y"], "b": []}], ["a", "b"]).splitlines()[1] == "x=1, y | -"


def test_a_cursor_comes_back_as_it_left() -> None:
    position = Position(query="q", size=50, token="t" * 3072, seen=100, skip=7)

    assert Position.decode(CIPHER, position.encode(CIPHER), "q") == position


@pytest.mark.parametrize("length", [500, 3072, 5900])
@pytest.mark.parametrize("skip", [0, 498])
def test_a_long_token_of_the_api_server_comes_back_through_the_argument(
    length: int, skip: int
) -> None:
    token = "t" * length
    before = Position(query="q" * 12, size=500, token=token, seen=9_999_000, skip=skip)
    page = Page(
        before, {"continue": token, "resourceVersion": "9" * 20}, 500, limit=500, cipher=CIPHER
    )

    for cursor in (page.next_cursor, page.cursor_after(499 - skip)):
        arguments = PodArguments.model_validate({"cursor": cursor})
        assert arguments.cursor is not None
        again = Position.decode(CIPHER, arguments.cursor, "q" * 12)
        assert again.parameters() == {"limit": "500", "continue": token}


def test_a_token_that_no_cursor_can_hold_is_told_and_not_cut() -> None:
    page = Page(Position(query="q", size=1), {"continue": "t" * 9000}, 1, limit=1, cipher=CIPHER)

    with pytest.raises(ToolError, match="narrow the search"):
        _ = page.next_cursor


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"query":"q","size":0}',
        '{"query":"q","size":501}',
        '{"query":"q","size":"50"}',
        '{"query":"q","size":50,"skip":-1}',
        '{"query":"q","size":50,"seen":10000001}',
        '{"query":"q","size":50,"version":"1&watch=1"}',
        '{"query":"q","size":50,"namespace":"other"}',
    ],
)
def test_a_forged_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidArguments, match="not a cursor of this tool"):
        Position.decode(CIPHER, CIPHER.encrypt(text.encode()), "q")


def test_a_cut_first_page_is_asked_for_at_the_same_state() -> None:
    page = Page(
        Position(query="q", size=500),
        {"resourceVersion": "42", "continue": "t"},
        500,
        limit=500,
        cipher=CIPHER,
    )

    again = Position.decode(CIPHER, page.cursor_after(300), "q")

    assert again.skip == 300
    assert again.parameters() == {
        "limit": "500",
        "resourceVersion": "42",
        "resourceVersionMatch": "Exact",
    }


@pytest.mark.parametrize("skip", [0, 10])
def test_more_rows_than_a_caller_may_have_are_not_shown(skip: int) -> None:
    forged = Position(query="q", size=500, token="t", skip=skip).resized(20)
    rows = list(range(500 if skip else 20))
    page = Page(forged, {"continue": "u"}, len(rows), limit=20, cipher=CIPHER)

    assert rows[page.shown] == list(range(skip, skip + 20))
    assert page.next_cursor is not None
    following = Position.decode(CIPHER, page.next_cursor, "q")
    assert (following.token, following.skip) == (("t", 30) if skip else ("u", 0))


def test_a_cut_later_page_is_asked_for_by_its_token() -> None:
    position = Position(query="q", size=500, token="t", seen=500, skip=10)
    page = Page(position, {"resourceVersion": "42", "continue": "u"}, 500, limit=500, cipher=CIPHER)

    again = Position.decode(CIPHER, page.cursor_after(300), "q")

    assert again.skip == 310
    assert again.parameters() == {"limit": "500", "continue": "t"}


@pytest.mark.parametrize(
    ("metadata", "total", "more"),
    [
        ({}, 150, False),
        ({"continue": "u", "remainingItemCount": 7}, 157, True),
        ({"continue": "u"}, None, True),
    ],
)
def test_the_total_is_told_where_it_is_known(
    metadata: dict[str, object], total: int | None, more: bool
) -> None:
    page = Page(
        Position(query="q", size=50, token="t", seen=100), metadata, 50, limit=50, cipher=CIPHER
    )

    assert page.total == total
    assert (page.next_cursor is not None) == more


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        (timedelta(seconds=-5), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(seconds=125), "2m5s"),
        (timedelta(minutes=10), "10m"),
        (timedelta(minutes=179), "179m"),
        (timedelta(hours=3, minutes=12), "3h12m"),
        (timedelta(hours=8), "8h"),
        (timedelta(hours=47), "47h"),
        (timedelta(days=2), "2d"),
        (timedelta(days=7, hours=23), "7d23h"),
        (timedelta(days=8), "8d"),
        (timedelta(days=729), "729d"),
        (timedelta(days=730), "2y"),
        (timedelta(days=735), "2y5d"),
        (timedelta(days=8 * 365), "8y"),
    ],
)
def test_an_age_is_written_as_kubectl_writes_it(passed: timedelta, shown: str) -> None:
    assert age((NOW - passed).isoformat(), NOW) == shown


def test_a_missing_time_is_an_unknown_age() -> None:
    assert age(None, NOW) == "<unknown>"


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("mcp_server.app", False),
        # What a configured cluster imports when it starts; shows that the question is a real one.
        ("mcp_server.tools.kubernetes.connection", True),
    ],
)
def test_the_client_is_imported_for_a_configured_cluster_alone(module: str, imported: bool) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, {module}; print('kubernetes.aio' in sys.modules, 'kubernetes' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.split() == [str(imported)] * 2


def workload(kind: str, spec: dict[str, Any], **status: Any) -> str | None:
    """What is wrong with a workload of that kind."""
    document = {
        "metadata": {"name": "w", "generation": 2},
        "spec": spec,
        "status": {"observedGeneration": 2, **status},
    }
    return service_health.workload_of(kind, document).problem


@pytest.mark.parametrize(
    ("spec", "status", "problem"),
    [
        ({}, {"readyReplicas": 2, "currentRevision": "a", "updateRevision": "a"}, None),
        ({}, {"observedGeneration": 1}, "the controller has not observed the change yet"),
        ({}, {"readyReplicas": 1}, "1 pods are not ready"),
        (
            {},
            {
                "readyReplicas": 2,
                "updatedReplicas": 1,
                "currentRevision": "a",
                "updateRevision": "b",
            },
            "1 of 2 pods are updated",
        ),
        (
            {"updateStrategy": {"type": "OnDelete"}},
            {"readyReplicas": 2, "currentRevision": "a", "updateRevision": "b"},
            None,
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"partition": 1}}},
            {"readyReplicas": 2, "updatedReplicas": 0, "updateRevision": "b"},
            "0 of 1 pods are updated",
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"partition": 1}}},
            {"readyReplicas": 2, "updatedReplicas": 1, "updateRevision": "b"},
            None,
        ),
    ],
)
def test_a_stateful_set_is_judged_as_kubectl_judges_its_rollout(
    spec: dict[str, Any], status: dict[str, Any], problem: str | None
) -> None:
    assert workload("StatefulSet", {"replicas": 2, **spec}, **status) == problem


@pytest.mark.parametrize(
    ("spec", "status", "problem"),
    [
        ({}, {"numberAvailable": 2, "updatedNumberScheduled": 2}, None),
        ({}, {"observedGeneration": 1}, "the controller has not observed the change yet"),
        ({}, {"desiredNumberScheduled": 0}, "no node is to run it"),
        ({}, {"numberAvailable": 2, "updatedNumberScheduled": 1}, "1 of 2 pods are updated"),
        ({}, {"numberAvailable": 1, "updatedNumberScheduled": 2}, "1 of 2 pods are available"),
        ({"updateStrategy": {"type": "OnDelete"}}, {"numberAvailable": 2}, None),
    ],
)
def test_a_daemon_set_is_judged_as_kubectl_judges_its_rollout(
    spec: dict[str, Any], status: dict[str, Any], problem: str | None
) -> None:
    assert workload("DaemonSet", spec, **{"desiredNumberScheduled": 2, **status}) == problem


def test_a_long_reason_of_a_rollout_keeps_its_end_and_shows_no_half_secret() -> None:
    said = f"admission webhook denied it: password={'x' * 900} {'y' * 700} missing label team"
    failure = {"type": "ReplicaFailure", "status": "True", "message": said}
    document = {"metadata": {}, "spec": {}, "status": {"conditions": [failure]}}

    message = rollout_of(document).message
    rest = rollout_of(
        {**document, "status": {"conditions": [{**failure, "message": said * 2}]}}
    ).message

    assert message.startswith("admission webhook denied it: password=[redacted] yyy")
    assert message.endswith("y missing label team")
    assert (len(rest), " … " in rest, "xxx" in rest) == (1000, True, False)
    assert rest.endswith("y missing label team")
