"""Queries that ask too much of a real Prometheus: refused one by one, while the others keep working."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.backend import BackendUnavailable
from mcp_server.tools.catalog import ToolContext, ToolError
from mcp_server.tools.deadline import deadline
from mcp_server.tools.monitoring.family import Monitoring
from mcp_server.tools.monitoring.prometheus import Prometheus as PrometheusClient
from mcp_server.tools.monitoring.prometheus import QueryTooExpensive
from tests.integration.servers import Prometheus, free_port

pytestmark = pytest.mark.anyio

Query = Callable[..., Coroutine[Any, Any, Any]]

# As many failures as open a circuit.
OPENS = 5
MINUTES = 60
# A series of each minute that is gone in the next ones, with labels as Kubernetes has them, and one
# whose many namesakes are gone when the range ends.
PAST = (int(time.time()) - 4 * 3600) // 60 * 60
EACH_MINUTE = 400
CROWD = 20_000
# Needs no processor: it waits for series of elsewhere, and Prometheus ends it at its deadline.
SLOW = 'up{place="elsewhere"}'
# Prometheus looks at its deadline nowhere in this one.
DEAF = "max_over_time(vector(1)[3h:1ms])"


def _past() -> str:
    labels = ",".join(f'label_{n}="{"x" * 60}"' for n in range(5))
    churned = [
        f'churned{{minute="{minute}",pod="pod-{n}",{labels}}} 1 {PAST + minute * 60}'
        for minute in range(MINUTES)
        for n in range(EACH_MINUTE)
    ]
    crowd = [
        f'crowd{{n="{n}"}} {n} {PAST + minute * 60}' for n in range(CROWD) for minute in (0, 4, 8)
    ]
    crowd += [f'crowd{{n="last"}} 7 {PAST + minute * 60}' for minute in (12, 16, 20)]
    return "\n".join(["# TYPE churned gauge", *churned, "# TYPE crowd gauge", *crowd, "# EOF\n"])


@pytest.fixture(scope="module")
def prometheus(workspace: Path) -> Iterator[Prometheus]:
    server = Prometheus(workspace / "prometheus-past")
    server.backfill(_past())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def elsewhere() -> int:
    """The port of what `narrow` reads series of `place="elsewhere"` from; a test plays it."""
    return free_port()


@pytest.fixture(scope="module")
def narrow(workspace: Path, elsewhere: int) -> Iterator[Prometheus]:
    """A Prometheus that evaluates five queries at a time, and loads 20,000 samples at most."""
    server = Prometheus(
        workspace / "prometheus-narrow",
        remote=[
            {
                "url": f"http://127.0.0.1:{elsewhere}/api/v1/read",
                "required_matchers": {"place": "elsewhere"},
            }
        ],
        flags=[f"--query.max-concurrency={OPENS}", "--query.max-samples=20000"],
    )
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def asking(url: str, *, timeout_s: float) -> AsyncIterator[Query]:
    """Give what calls `query_metrics` over the Prometheus at `url`."""
    settings = MonitoringSettings.model_validate(
        {
            "prometheus_url": url,
            "alertmanager_url": "http://127.0.0.1:9",
            "timeout_s": timeout_s,
        }
    )
    family = Monitoring(settings)
    (tool,) = [each for each in family.tools() if each.name.endswith(":query_metrics")]

    async def query(text: str, **arguments: Any) -> Any:
        parsed = tool.parse({"query": text, **arguments})
        return await tool.run(parsed, ToolContext(user="u", tenant="t"))

    await family.start()
    try:
        yield query
    finally:
        await family.stop()


@asynccontextmanager
async def playing(
    answer: Callable[[web.Request], Awaitable[web.Response]], port: int = 0
) -> AsyncIterator[str]:
    """Give the address of a server that answers everything with `answer`."""
    application = web.Application()
    application.add_routes([web.route("*", "/api/v1/{call:.+}", answer)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def silent(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def too_expensive(query: Query, text: str, said: str) -> None:
    """Make a query as often as failures open a circuit; each is refused as too expensive."""
    refused = await asyncio.gather(
        *(query(text, instant=True) for _ in range(OPENS)), return_exceptions=True
    )
    for error in refused:
        assert isinstance(error, QueryTooExpensive)
        assert re.search(said, str(error))
        assert error.retryable is False


async def test_queries_that_time_out_are_refused_and_the_next_one_is_answered(
    narrow: Prometheus, elsewhere: int
) -> None:
    async with playing(silent, elsewhere), asking(narrow.url, timeout_s=10) as query:
        await too_expensive(query, SLOW, "(timed out in expression evaluation|did not finish)")

        # At once: they had every place for queries, and Prometheus left them off by itself.
        assert (await query("up", instant=True)).total == 1


async def test_a_query_of_too_many_samples_is_told_what_helps(narrow: Prometheus) -> None:
    async with asking(narrow.url, timeout_s=60) as query:
        with pytest.raises(
            QueryTooExpensive, match=r"too many samples.*\. Ask for a shorter range"
        ):
            await query("max_over_time(vector(1)[6h:1s])", instant=True)

        assert (await query("up")).total == 1


async def test_a_query_that_waits_for_others_says_so(narrow: Prometheus, elsewhere: int) -> None:
    """All places are taken by queries that need no processor: they wait for series of elsewhere."""
    asked, done = asyncio.Semaphore(0), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        asked.release()
        await done.wait()
        return web.Response(status=503)

    async with (
        playing(answer, elsewhere),
        asking(narrow.url, timeout_s=120) as hog,
        asking(narrow.url, timeout_s=15) as query,
    ):
        hogging = [asyncio.create_task(hog(SLOW, instant=True)) for _ in range(OPENS)]
        try:
            for _ in range(OPENS):
                await asked.acquire()
            with pytest.raises(ToolError, match="busy with other queries") as refused:
                await query("up", instant=True)
        finally:
            done.set()
        assert refused.value.retryable is True
        for found in await asyncio.gather(*hogging):
            assert any("503" in note for note in found.notes)

        assert (await query("up", instant=True)).total == 1


async def test_a_query_that_heeds_no_timeout_is_too_expensive(prometheus: Prometheus) -> None:
    async with asking(prometheus.url, timeout_s=5) as query:
        with pytest.raises(QueryTooExpensive, match=r"did not finish within 4\.5 s"):
            await query(DEAF, instant=True)


async def test_queries_without_an_answer_do_not_shut_out_others() -> None:
    """Prometheus is played: the real one would need minutes of this machine's processors."""

    async def answer(request: web.Request) -> web.Response:
        if "slow" in request.query.get("query", ""):
            await asyncio.Event().wait()
        return web.json_response(
            {"status": "success", "data": {"resultType": "vector", "result": []}}
        )

    async with playing(answer) as url, asking(url, timeout_s=8) as query:
        await too_expensive(query, "slow", r"did not finish within 7\.2 s")

        assert (await query("1 > 2", instant=True)).total == 0


@asynccontextmanager
async def naming() -> AsyncIterator[tuple[str, list[str], asyncio.Event]]:
    """Give the address of what finds nothing at once and lists its names only once it is told to.

    Prometheus is played: the real one would need millions of series. Does not prove how long it takes.

    Yields:
        The address, the paths of what its names were asked by, and what tells it to list them.
    """
    asked: list[str] = []
    told = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        found: Any = {"resultType": "matrix", "result": []}
        if "label" in request.path:
            asked.append(request.path)
            await told.wait()
            found = ["http_requests_total"]
        return web.json_response({"status": "success", "data": found})

    async with playing(answer) as url:
        yield url, asked, told


async def test_a_hint_that_is_not_soon_known_does_not_delay_an_answer() -> None:
    async with naming() as (url, asked, told), asking(url, timeout_s=120) as query:
        started = time.monotonic()
        many = await asyncio.gather(*(query(f'http_request_total{{n="{n}"}}') for n in range(30)))
        took = time.monotonic() - started
        told.set()
        later = await query("http_request_total")
        while not later.notes:
            later = await query("http_request_total")

    assert [each.notes for each in many] == [()] * 30
    # They share one question and do not stand in line for it, a second each.
    assert took < 25
    assert len(asked) == 1
    # It was not asked in vain.
    assert later.notes == ("no metric is called http_request_total; near: http_requests_total",)


async def test_whoever_asks_for_names_waits_as_long_as_it_has_time() -> None:
    async with naming() as (url, asked, told):
        client = PrometheusClient(
            MonitoringSettings.model_validate(
                {"prometheus_url": url, "alertmanager_url": url, "timeout_s": 120}
            )
        )
        await client.start()
        try:
            hasty = asyncio.create_task(_hastily(client))
            while not asked:  # noqa: ASYNC110 (a list has no event to wait for)
                await asyncio.sleep(0.01)
            patient = asyncio.create_task(client.metric_names())
            said = await hasty
            assert not patient.done()
            told.set()
            names = await patient
            again = await client.metric_names()
        finally:
            await client.stop()

    # A tenth is kept for what follows; what passes before it asks is less on an idle machine.
    (waited_s,) = re.findall(r"Prometheus is not available: no answer within ([0-9.]+) s", said)
    assert 0 < float(waited_s) <= 1.8
    assert names == again == ("http_requests_total",)
    assert len(asked) == 1


async def _hastily(client: PrometheusClient) -> str:
    with pytest.raises(BackendUnavailable) as late:
        async with deadline(2):
            await client.metric_names()
    return str(late.value)


async def test_a_question_under_way_ends_with_its_family() -> None:
    async with naming() as (url, asked, _):
        started = time.monotonic()
        async with asking(url, timeout_s=120) as query:
            assert (await query("up")).notes == ()
            assert len(asked) == 1

        # Far less than what the question was given.
        assert time.monotonic() - started < 60


async def test_a_prometheus_that_answers_nothing_is_asked_five_times(
    prometheus: Prometheus,
) -> None:
    async with asking(prometheus.url, timeout_s=2) as query:
        with prometheus.paused():
            unanswered = await asyncio.gather(
                *(query("up", instant=True) for _ in range(OPENS)), return_exceptions=True
            )
            for error in unanswered:
                assert isinstance(error, BackendUnavailable)
                assert "no answer within" in str(error)
            with pytest.raises(BackendUnavailable, match="recent calls failed"):
                await query("up", instant=True)


async def test_series_that_are_gone_at_the_end_count(prometheus: Prometheus) -> None:
    async with asking(prometheus.url, timeout_s=60) as query:
        at_end = await query("crowd", instant=True, end=str(PAST + 1200))
        found = await query("crowd", start=str(PAST), end=str(PAST + 1200), limit=1)

    assert (at_end.total, found.total) == (1, CROWD + 1)
    # One series alone would come with a point every five seconds.
    assert found.step_s == 120


async def test_many_series_that_live_shortly_come_with_fewer_points(
    prometheus: Prometheus,
) -> None:
    async with asking(prometheus.url, timeout_s=60) as query:
        found = await query("churned", start=str(PAST), end=str(PAST + 1800), limit=1)

    assert found.total == 31 * EACH_MINUTE
    assert found.step_s == 120


async def test_an_answer_that_stays_too_long_is_refused_with_what_helps(
    prometheus: Prometheus,
) -> None:
    everything = f'last_over_time({{__name__="churned"}}[{MINUTES}m])'
    async with asking(prometheus.url, timeout_s=60) as query:
        for arguments in ({"instant": True}, {"start": str(PAST)}):
            with pytest.raises(
                QueryTooExpensive, match=r"more than 8 MiB\. Ask for a shorter range or fewer"
            ):
                await query(everything, end=str(PAST + MINUTES * 60), **arguments)


@pytest.mark.parametrize("text", ["5", "time() # seconds", "sum(up) # a comment", "-up"])
async def test_every_kind_of_expression_has_a_range(prometheus: Prometheus, text: str) -> None:
    async with asking(prometheus.url, timeout_s=60) as query:
        found = await query(text)

    assert (found.total, found.step_s) == (1, 1.0)


async def test_a_fault_is_told_where_it_stands_in_the_query(prometheus: Prometheus) -> None:
    async with asking(prometheus.url, timeout_s=60) as query:
        with pytest.raises(ToolError, match=r"1:4: parse error"):
            await query("up }")
