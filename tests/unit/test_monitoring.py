"""The monitoring family without its backends: ranges, steps, matchers, names, orders, pages."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mcp_server.settings import AccessSettings, GrafanaSettings, MonitoringSettings, Secret
from mcp_server.tools.backend import BackendUnavailable
from mcp_server.tools.catalog import InvalidArguments, ToolError
from mcp_server.tools.deadline import deadline
from mcp_server.tools.monitoring.alertmanager import KnownAlert
from mcp_server.tools.monitoring.alerts import Alerts, _joined, _Known
from mcp_server.tools.monitoring.create_dashboard import create_dashboard
from mcp_server.tools.monitoring.get_alerts import GetAlertsArguments
from mcp_server.tools.monitoring.matchers import MOST_MATCHERS, matchers_of
from mcp_server.tools.monitoring.names import NearNames, names_in, near_names
from mcp_server.tools.monitoring.prometheus import (
    Prometheus,
    PrometheusAlert,
    QueryRefused,
    QueryTooExpensive,
    TimeSeries,
    _answer,
    _of_one_request,
)
from mcp_server.tools.monitoring.query_metrics import _largest_first, _row, _short
from mcp_server.tools.monitoring.timerange import Window, evaluation, instant, window_of

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("time_range", "start", "end", "expected"),
    [
        (None, None, None, (NOW - 300, NOW)),
        ("2h", None, None, (NOW - 7200, NOW)),
        (None, str(NOW - 60), None, (NOW - 60, NOW)),
        (None, "1970-01-01T00:01:00Z", "120", (60, 120)),
        (None, "1970-01-01T01:01:00+01:00", "90", (60, 90)),
    ],
)
def test_a_window_is_named_in_several_ways(
    time_range: str | None,
    start: str | None,
    end: str | None,
    expected: tuple[float, float],
) -> None:
    assert window_of(time_range, start, end, now=NOW) == Window(*expected)


@pytest.mark.parametrize(
    ("time_range", "start", "end", "said"),
    [
        (
            "0m",
            None,
            None,
            "'0m' is not a number and s, m, h, d or w, such as 5m, 2h, 7d; at least 1s",
        ),
        ("soon", None, None, "time_range: 'soon' is not a number and s, m, h, d or w"),
        ("5m", "1", None, "either time_range or start"),
        (None, None, "1", "end needs a start"),
        (None, "2026-01-01T00:00:00", None, "neither RFC 3339 with an offset"),
        (None, "nan", None, "not a time that can be asked for"),
        (None, "20", "10", "start must be before end"),
        ("367d", None, None, "at most 366 days"),
    ],
)
def test_a_window_that_cannot_be_asked_for_is_explained(
    time_range: str | None, start: str | None, end: str | None, said: str
) -> None:
    with pytest.raises(InvalidArguments, match=re.escape(said)):
        window_of(time_range, start, end, now=NOW)


@pytest.mark.parametrize(
    "when",
    [
        "1769860800",
        "2026-01-31T12:00:00Z",
        "2026-01-31t12:00:00z",
        "2026-01-31 12:00:00z",
        "2026-01-31t13:30:00.000+01:30",
    ],
)
def test_a_time_is_rfc_3339_in_any_case_or_unix_seconds(when: str) -> None:
    assert instant("start", when) == 1769860800


@pytest.mark.parametrize("span_s", [1, 5, 300, 499, 500, 501, 3600, 86400, 92 * 86400, 366 * 86400])
@pytest.mark.parametrize("most", [2, 25, 500])
def test_the_chosen_step_holds_the_points_and_ends_at_the_end(span_s: int, most: int) -> None:
    asked = Window(NOW - span_s, NOW)

    when = evaluation(asked, max_points=most)

    assert (when.end - when.start) / when.step_s + 1 <= most
    assert when.end == NOW
    assert when.start >= asked.start


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("job=api", ['job="api"']),
        (" a != b ", ['a!="b"']),
        ("c=~db-.*", ['c=~"db-.*"']),
        ("d=~(", ['d=~"("']),
        ('e!~"f|g"', ['e!~"f|g"']),
        ('f=""', ['f=""']),
        # The three kinds of quotes.
        ("job='api'", ['job="api"']),
        ("job=`api`", ['job="api"']),
        (r"""a='"hi" \'no\''""", [r"""a="\"hi\" 'no'" """.strip()]),
        (r"""a="\"hi\" 'no'" """, [r"""a="\"hi\" 'no'" """.strip()]),
        (r"a=`\d+\`", [r'a="\\d+\\"']),
        ("a=`two\nlines`", [r'a="two\nlines"']),
        (r'a="\x41\101\u00e9\U0001F600\xc3\xa9"', ['a="AAé😀é"']),
        (r'a="\a\b\f\n\r\t\v\\"', ['a="\a\b\f\\n\r\t\v\\\\"']),
        # Names of labels that are not plain.
        ('{"my.label"="x"}', ['"my.label"="x"']),
        ("my.label=x", ['"my.label"="x"']),
        ("'größe'=`1`", ['"größe"="1"']),
        ('"job"="x"', ['job="x"']),
        # Several, as in a selector.
        ('{job="a", severity!=info,}', ['job="a"', 'severity!="info"']),
        ("job=a,b=c", ['job="a"', 'b="c"']),
    ],
)
def test_matchers_are_read_as_prometheus_and_alertmanager_read_them(
    asked: str, expected: list[str]
) -> None:
    assert matchers_of([asked]) == expected


@pytest.mark.parametrize(
    ("asked", "place", "says"),
    [
        ("", "1 (the end)", "expected the name of a label"),
        ("{}", "2 ('}')", "expected the name of a label"),
        ("=b", "1 ('=')", "expected the name of a label"),
        ('""=b', "3 ('=')", "the name of the label is empty"),
        ("job", "4 (the end)", "expected one of = != =~ !~"),
        ("a b", "3 ('b')", "expected one of = != =~ !~"),
        ('{"up"}', "6 ('}')", "expected one of = != =~ !~"),
        ("a=", "3 (the end)", 'expected a value (an empty one is "")'),
        ('job=="api"', "5 ('=')", 'expected a value (an empty one is "")'),
        ("a=~=b", "4 ('=')", 'expected a value (an empty one is "")'),
        ('a="b', "3 ('\"')", "a quote that is not closed"),
        ("a=b'c", '4 ("\'")', "expected a comma or the end"),
        ("a=High CPU", "8 ('C')", "expected a comma or the end"),
        ('a=x"} or vector(1)', "4 ('\"')", "expected a comma or the end"),
        ("{a=b", "5 (the end)", "expected a comma or }"),
        ("{a=b} c", "7 ('c')", "expected the end"),
        ("a=b}", "4 ('}')", "expected a comma or the end"),
        ('a="b\nc"', "3 ('\"')", "a quote that is not closed"),
        (r'a = "\z"', "5 ('\"')", "an escape that Go does not have"),
        (r"""a="\'\"""", "3 ('\"')", "a quote that is not closed"),
        (r"""a="\'" """, "3 ('\"')", "an escape that Go does not have"),
        (r'a="\xff"', "3 ('\"')", "bytes that are not UTF-8"),
        (r'a="\ud83d\ude00"', "3 ('\"')", "an escape that Go does not have"),
        (r'a="\U00110000"', "3 ('\"')", "an escape that Go does not have"),
        (r'a="\777"', "3 ('\"')", "an escape that Go does not have"),
        (r'a="\x4"', "3 ('\"')", "an escape that Go does not have"),
    ],
)
def test_what_is_no_matcher_is_refused_with_the_place(asked: str, place: str, says: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        matchers_of(["job=api", asked])

    assert f"character {place}: " in str(refused.value)
    assert says in str(refused.value)
    assert str(refused.value).startswith("matchers: ")


def test_a_long_matcher_that_is_none_is_told_in_few_words() -> None:
    with pytest.raises(InvalidArguments) as refused:
        matchers_of(["x y" * 100_000])

    assert len(str(refused.value)) < 500


def test_more_matchers_than_anyone_needs_are_refused() -> None:
    matchers = ["a=b"] * MOST_MATCHERS

    assert GetAlertsArguments.model_validate({"matchers": matchers}).matchers == matchers
    with pytest.raises(ValidationError, match=f"at most {MOST_MATCHERS} items"):
        GetAlertsArguments.model_validate({"matchers": [*matchers, "a=b"]})


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("up", ["up"]),
        (
            'sum by (job, le) (rate(http_total{code="500 or"}[5m] offset 1h)) / on(job) b',
            ["http_total", "b"],
        ),
        ('{__name__="x_total", job="y"}', ["x_total"]),
        ("vector(1)", []),
        ("a:b:c > bool 1e3 # about d", ["a:b:c"]),
    ],
)
def test_names_of_metrics_are_found_in_a_query(query: str, names: list[str]) -> None:
    assert names_in(query) == names


def test_near_names_are_found_among_many() -> None:
    known = [f"filler_{number}" for number in range(30_000)] + ["http_requests_total"]

    assert near_names("http_request_total", known) == ["http_requests_total"]


def test_a_near_name_may_share_no_whole_word() -> None:
    known = [f"filler_{number}" for number in range(2_000)] + ["go_goroutines"]

    assert near_names("go_gorutins", known) == ["go_goroutines"]


def test_nothing_is_near_a_name_that_is_longer_than_names_are() -> None:
    long = "x" * 201

    assert near_names(long, [long]) == []


class Listed(Sequence[str]):
    """Names that tell how many searches go through them, and how many at once."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._now = 0
        self.searches = 0
        self.at_once = 0

    def __getitem__(self, index: Any) -> Any:
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        self.searches += 1
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        yield from self._names
        self._now -= 1


@pytest.mark.anyio
async def test_searches_for_near_names_take_turns_and_few_wait() -> None:
    known = Listed(*(f"http_requests_total_{number}" for number in range(500)))
    near = NearNames(most_waiting=3)

    at_once = await asyncio.gather(*(near.of("http_request_total_1", known) for _ in range(50)))
    later = await near.of("http_request_total_1", known)

    assert [bool(found) for found in at_once] == [True] * 4 + [False] * 46
    assert known.searches == 5
    assert known.at_once == 1
    assert later == at_once[0]


@pytest.mark.anyio
async def test_a_search_that_nobody_waits_for_gives_its_place_back() -> None:
    known = Listed("http_requests_total")
    near = NearNames(most_waiting=0)
    search = asyncio.create_task(near.of("http_request_total", known))
    await asyncio.sleep(0)

    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search

    assert await near.of("http_request_total", known) == ["http_requests_total"]


def test_the_largest_latest_value_comes_first_and_nan_last() -> None:
    def series(value: float) -> TimeSeries:
        return TimeSeries({"v": str(value)}, ((1.0, value),), 0)

    found = sorted(map(series, (math.nan, 1.0, -math.inf, 5.0)), key=_largest_first)

    assert [each.labels["v"] for each in found] == ["5.0", "1.0", "-inf", "nan"]


_SINCE = datetime(2026, 1, 31, tzinfo=UTC)
_labels = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")).map(
    lambda labels: {**labels, "alertname": "A"}
)
_raised = st.builds(
    PrometheusAlert,
    labels=_labels,
    annotations=st.just({}),
    state=st.sampled_from(["firing", "pending"]),
    active_since=st.just(_SINCE),
)
_known = st.builds(
    KnownAlert,
    labels=_labels,
    annotations=st.just({}),
    active_since=st.just(_SINCE),
    silenced=st.booleans(),
    inhibited=st.booleans(),
)


def _joined_pair_by_pair(
    raised: list[PrometheusAlert], known: list[KnownAlert]
) -> list[tuple[dict[str, str], str]]:
    """What `_joined` has to give, without the indexes that make it fast."""
    found, ours = [], []
    for alert in raised:
        same = [each for each in known if alert.labels.items() <= each.labels.items()]
        if not same and alert.state == "firing":
            same = [
                each
                for each in known
                if all(
                    alert.labels.get(name, value) == value for name, value in each.labels.items()
                )
            ]
        ours += [each.labels for each in same]
        found.append((alert.labels, _state(alert.state, same)))
    found += [(each.labels, _state("firing", [each])) for each in known if each.labels not in ours]
    return [(dict(labels), state) for labels, state in found]


def _state(state: str, same: list[KnownAlert]) -> str:
    if state != "firing" or not same or not all(each.silenced or each.inhibited for each in same):
        return state
    return "silenced" if any(each.silenced for each in same) else "inhibited"


@given(raised=st.lists(_raised, max_size=8), known=st.lists(_known, max_size=8))
def test_alerts_are_joined_as_they_are_pair_by_pair(
    raised: list[PrometheusAlert], known: list[KnownAlert]
) -> None:
    joined = _joined(raised, _Known(everything=known, rows_that_fit=known))

    assert [(each.labels, each.state) for each in joined] == _joined_pair_by_pair(raised, known)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1785312345.0, "1785312345"),
        (1785312345.67, "1785312346"),
        (123456789.25, "123456789.2"),
        (1234567, "1234567"),
        (-68719476736.0, "-68719476736"),
        (999999999999999.0, "999999999999999"),
        (1e15, "1e+15"),
        (1.8446744073709552e19, "1.844674407e+19"),
        (0.1 + 0.2, "0.3"),
        (1 / 3, "0.3333333333"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.5e-7, "1.5e-07"),
        (None, None),
        ("[masked by policy]", "[masked by policy]"),
    ],
)
def test_numbers_of_a_text_are_as_exact_as_they_are_asked_for(value: Any, text: Any) -> None:
    assert _short(value) == text


def test_a_native_histogram_is_counted_and_has_no_value() -> None:
    histogram = {"count": "3", "sum": "1.5", "buckets": [[0, "0", "1", "3"]]}
    body = {
        "data": {
            "resultType": "matrix",
            "result": [{"metric": {"a": "b"}, "histograms": [[1, histogram], [2, histogram]]}],
        },
        "warnings": ["w"],
        "infos": ["i"],
    }

    answer = _answer(body)
    row = _row(answer.series[0], samples=True)

    assert answer.notes == ("w", "i")
    assert (row.value, row.points, row.min, row.samples) == (None, 2, None, [])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.0, 3.0), (3.0, 1.0, 3.0, 2.0)),
        ((math.nan, 1.0, 3.0), (3.0, 1.0, 3.0, 2.0)),
        ((1.0, math.nan), ("NaN", 1.0, 1.0, 1.0)),
        ((math.nan,), ("NaN", "NaN", "NaN", "NaN")),
        ((1.0, math.inf), ("+Inf", 1.0, "+Inf", "+Inf")),
        ((1.0, -math.inf), ("-Inf", "-Inf", 1.0, "-Inf")),
        ((math.inf, -math.inf, 0.0), (0.0, "-Inf", "+Inf", "NaN")),
        ((1.7e308, 1.7e308), (1.7e308, 1.7e308, 1.7e308, 1.7e308)),
    ],
)
def test_infinities_and_nan_are_told_apart(
    values: tuple[float, ...], expected: tuple[Any, ...]
) -> None:
    row = _row(TimeSeries({}, tuple(enumerate(values)), 0), samples=True)

    assert (row.value, row.min, row.max, row.avg) == expected
    assert row.samples is not None
    spelled = [float(sample[1]) for sample in row.samples]
    assert spelled == pytest.approx(values, nan_ok=True)
    # What a client reads is JSON.
    assert json.loads(row.model_dump_json(), parse_constant=pytest.fail)["value"] == expected[0]


@pytest.mark.parametrize(
    ("kind", "said", "error", "retryable"),
    [
        ("bad_data", "1:3: parse error", QueryRefused, False),
        ("execution", "many-to-many matching", QueryRefused, False),
        ("execution", "query processing would load too many samples", QueryTooExpensive, False),
        ("timeout", "query timed out in expression evaluation", QueryTooExpensive, False),
        ("timeout", "query timed out in query queue", ToolError, True),
        ("canceled", "query was canceled in query execution", ToolError, True),
        ("internal", "expanding series: read block", ToolError, True),
    ],
)
def test_what_prometheus_says_of_one_query_is_no_outage(
    kind: str, said: str, error: type[ToolError], retryable: bool
) -> None:
    found = _of_one_request({"status": "error", "errorType": kind, "error": said})

    assert type(found) is error
    assert said in str(found)
    assert found.retryable is retryable


@pytest.mark.parametrize(
    "body",
    [
        {"status": "error", "errorType": "unavailable", "error": "TSDB not ready"},
        {"status": "error", "errorType": "what comes next"},
        {"status": "success"},
        None,
        "Service Unavailable",
    ],
)
def test_anything_else_with_a_server_error_is_an_outage(body: object) -> None:
    assert _of_one_request(body) is None


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("https://mimir.test/prometheus", True),
        ("http://127.0.0.1:9090", True),
        ("http://mimir.test", False),
    ],
)
def test_a_token_needs_a_way_on_which_nobody_reads(name: str, url: str, accepted: bool) -> None:
    document: dict[str, Any] = {
        "prometheus_url": "http://prometheus.test",
        "alertmanager_url": "http://alertmanager.test",
        f"{name}_url": url,
        name: {"token": {"file": "/token"}},
    }

    if accepted:
        MonitoringSettings.model_validate(document)
    else:
        with pytest.raises(ValidationError, match=f"{name}_url must begin with https://"):
            MonitoringSettings.model_validate(document)


@pytest.mark.parametrize("tenant", ["", "a\nb", "a b", "x" * 151])
def test_a_tenant_that_no_header_holds_is_refused(tenant: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        AccessSettings(tenant=tenant)


@pytest.mark.anyio
async def test_a_dashboard_whose_queries_take_too_long_is_not_said_to_be_saved_perhaps() -> None:
    prometheus, grafana = Mock(), Mock(spec=[])  # nothing may be asked of Grafana
    prometheus.query = lambda _: asyncio.sleep(60)
    settings = GrafanaSettings(
        url="http://127.0.0.1", token=Secret(file=Path("unread")), datasource_uid="p"
    )
    tool = create_dashboard(settings, grafana, prometheus)
    arguments = tool.parse({"title": "T", "panels": [{"title": "P", "query": "up"}] * 40})

    with pytest.raises(ToolError, match="Nothing was saved: ") as late:
        async with deadline(2):
            await tool.run(arguments, Mock())

    # A tenth is kept for the answer; what passes before the queries begin is less on an idle machine.
    (waited_s,) = re.findall(r" within ([0-9.]+) s", str(late.value))
    assert 0 < float(waited_s) <= 1.8
    assert late.value.retryable


class Outage:
    """A Prometheus of which the third question fails; the others wait for it."""

    def __init__(self) -> None:
        self.asked = 0
        self.waiting = 0

    async def query(self, _: str) -> None:
        self.asked += 1
        if self.asked == 3:
            await asyncio.sleep(0.01)
            raise BackendUnavailable("Prometheus", "it answered HTTP 503")
        self.waiting += 1
        try:
            await asyncio.sleep(0.02)
        finally:
            self.waiting -= 1


@pytest.mark.anyio
async def test_nothing_is_asked_for_a_dashboard_after_the_answer() -> None:
    prometheus = Outage()
    settings = GrafanaSettings(
        url="http://127.0.0.1", token=Secret(file=Path("unread")), datasource_uid="p"
    )
    tool = create_dashboard(settings, Mock(spec=[]), cast("Prometheus", prometheus))
    arguments = tool.parse({"title": "T", "panels": ["up"] * 40})

    with pytest.raises(BackendUnavailable, match="HTTP 503"):
        await tool.run(arguments, Mock())

    assert prometheus.waiting == 0
    asked = prometheus.asked
    await asyncio.sleep(0.1)
    assert prometheus.asked == asked


@pytest.mark.anyio
async def test_alertmanager_is_not_asked_after_prometheus_failed() -> None:
    given_up = asyncio.Event()

    async def fails(*_: object) -> None:
        await asyncio.sleep(0)
        raise BackendUnavailable("Prometheus", "it answered HTTP 503")

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            given_up.set()

    prometheus = Mock(alerts=waits, query=fails)
    alerts = Alerts(prometheus, Mock(alerts=waits))

    with pytest.raises(BackendUnavailable, match="HTTP 503"):
        await alerts.current(['job="x"'])

    assert given_up.is_set()
