"""What every CMDB backend must do, seen through the tools: one suite, run on each of them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mcp_server.infrastructure.database import Database
from mcp_server.tools.backend import BackendUnavailable
from mcp_server.tools.catalog import InvalidArguments, ToolContext
from mcp_server.tools.cmdb.assets import AssetArguments
from mcp_server.tools.cmdb.backend import AssetChanged, AssetNotFound
from mcp_server.tools.cmdb.change_records import ChangeArguments
from mcp_server.tools.cmdb.model import Direction
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES
from tests.integration.cmdbs import CmdbUnderTest, Postgres, Rest, Tools, asset
from tests.integration.forged import forged
from tests.integration.servers import PostgresServer

pytestmark = pytest.mark.anyio

# Two services on two hosts; web and api call each other, which is a cycle.
LANDSCAPE = [
    asset("web", name="shop", type="application"),
    asset("api", name="api", type="application"),
    asset("app1"),
    asset("app2", status="maintenance"),
    asset("db1", type="database"),
]
RELATIONS = [
    ("web", "api", "calls"),
    ("api", "web", "calls"),
    ("web", "app1", "runs_on"),
    ("api", "app2", "runs_on"),
    ("api", "db1", "depends_on"),
]
AWKWARD_IDS = [
    "a/b",
    "a%2Fb",
    "a b",
    "ä€",
    "a?b=c#d",
    "a+b",
    "'; --",
    '"',
    "..a",
    "a/../b",
    "#",
    "?",
    "/",
    "%2E%2E",
    "a\\b",
    "%",
    "{id}",
]


@pytest.fixture(name="postgres_cmdb")
async def _postgres_cmdb(
    database: Database, owner: asyncpg.Connection, postgres: PostgresServer
) -> CmdbUnderTest:
    return Postgres(database, owner, postgres)


@pytest.fixture(name="rest_cmdb")
async def _rest_cmdb(tmp_path: Path) -> AsyncIterator[CmdbUnderTest]:
    async with Rest.running(tmp_path) as rest:
        yield rest


@pytest.fixture(params=["postgres", "rest"], name="cmdb")
def _cmdb(request: pytest.FixtureRequest) -> CmdbUnderTest:
    """Each backend; a test of one makes nothing for the other."""
    found: CmdbUnderTest = request.getfixturevalue(f"{request.param}_cmdb")
    return found


@pytest.fixture(name="tools")
async def _tools(cmdb: CmdbUnderTest) -> Tools:
    return Tools(cmdb.backend)


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


class TestQueryAssets:
    async def test_an_asset_has_the_fields_of_the_contract(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        before = datetime.now(UTC) - timedelta(minutes=1)
        await cmdb.put([asset("db1", type="database", ip_address="10.91.0.21", owner="dba")])

        found = await tools.call("query_assets")

        (row,) = found["assets"]
        assert datetime.fromisoformat(row.pop("last_updated")) > before
        assert row == {
            "id": "db1",
            "name": "db1.test",
            "type": "database",
            "environment": "prod",
            "status": "active",
            "ip_address": "10.91.0.21",
            "owner": "dba",
            "version": 1,
        }
        assert (found["total"], found["truncated"], found["next_cursor"]) == (1, False, None)

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ({}, ["a", "b", "c", "d"]),
            ({"asset_type": "server"}, ["a", "b"]),
            ({"environment": "dev"}, ["b", "d"]),
            ({"status": "inactive"}, ["c"]),
            ({"owner": "dba"}, ["c"]),
            ({"name_prefix": "c."}, ["c"]),
            ({"name_prefix": "%"}, []),
            ({"asset_type": "server", "environment": "dev"}, ["b"]),
            ({"asset_type": "server", "status": "inactive"}, []),
        ],
    )
    async def test_each_argument_narrows(
        self, cmdb: CmdbUnderTest, tools: Tools, query: dict[str, Any], expected: list[str]
    ) -> None:
        await cmdb.put(
            [
                asset("a"),
                asset("b", environment="dev"),
                asset("c", type="database", status="inactive", owner="dba"),
                asset("d", type="application", environment="dev"),
            ]
        )

        found = await tools.call("query_assets", **query)

        assert _ids(found["assets"]) == expected
        assert found["total"] == len(expected)

    async def test_pages_follow_each_other_without_gap_or_repetition(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put(asset(f"host-{n:02}") for n in range(25))

        seen: list[str] = []
        cursor = None
        while True:
            page = await tools.call("query_assets", limit=10, cursor=cursor)
            assert page["total"] == 25 + (len(seen) >= 10)
            seen += _ids(page["assets"])
            cursor = page["next_cursor"]
            if cursor is None:
                break
            assert page["truncated"]
            if len(seen) == 10:  # what comes in between neither hides nor repeats the rest
                await cmdb.put([asset("host-000")])

        assert seen == [f"host-{n:02}" for n in range(25)]

    async def test_a_page_that_the_budget_cuts_continues_at_the_right_row(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put(asset(f"host-{n:03}", name="n" * 250) for n in range(300))

        first = await tools.call("query_assets", limit=300)
        second = await tools.call("query_assets", limit=1, cursor=first["next_cursor"])

        assert 0 < len(first["assets"]) < 300
        assert _ids(second["assets"]) == [f"host-{len(first['assets']):03}"]

    @pytest.mark.parametrize("place", [{}, {"id": ""}, {"id": "a\0"}, {"id": 1}, {"id": "a" * 257}])
    async def test_a_forged_cursor_is_refused(self, tools: Tools, place: dict[str, object]) -> None:
        cursor = forged(AssetArguments(), **place)

        with pytest.raises(InvalidArguments, match="not a cursor of this tool"):
            await tools.call("query_assets", cursor=cursor)

    async def test_a_cursor_of_a_list_with_other_filters_is_refused(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("a"), asset("b")])
        cursor = (await tools.call("query_assets", limit=1))["next_cursor"]

        with pytest.raises(InvalidArguments, match="other arguments"):
            await tools.call("query_assets", status="active", cursor=cursor)

    async def test_the_cursor_of_the_resource_goes_on_in_the_tool(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset(f"a{number:03}") for number in range(202)])
        (listed,) = [each for each in tools.family.resources() if not each.parameters]

        first = json.loads(await listed.read(ToolContext(user="u", tenant="default"), {}))
        second = await tools.call("query_assets", cursor=first["next_cursor"])

        assert len(first["assets"]) == 200
        assert _ids(second["assets"]) == ["a200", "a201"]

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            ({"asset_type": "router"}, "asset_type: Input should be 'server'"),
            ({"colour": "red"}, "colour: unknown argument; known arguments: limit"),
            ({"limit": 0}, "limit: Input should be greater than or equal to 1"),
            ({"owner": "a\0"}, "owner: must not contain NUL"),
            ({"fields": ["ip"]}, "unknown field 'ip'; known fields: id, name"),
        ],
    )
    async def test_arguments_that_do_not_fit_are_named(
        self, tools: Tools, arguments: dict[str, Any], fault: str
    ) -> None:
        with pytest.raises(InvalidArguments) as caught:
            await tools.call("query_assets", **arguments)

        assert fault in str(caught.value)


class TestTenants:
    async def test_each_tenant_has_its_own_assets(self, cmdb: CmdbUnderTest, tools: Tools) -> None:
        await cmdb.put([asset("a", owner="one")], tenant="one")
        await cmdb.put([asset("a", owner="two"), asset("b")], tenant="two")

        counts = {
            tenant: (await tools.call("query_assets", tenant=tenant))["total"]
            for tenant in ("one", "two", "three", "tä nant/1")
        }

        assert counts == {"one": 1, "two": 2, "three": 0, "tä nant/1": 0}

    @pytest.mark.parametrize(
        ("tool", "arguments"),
        [
            ("get_service_topology", {"service_name": "secret"}),
            ("get_service_topology", {"service_name": "secret.test"}),
            (
                "update_asset_status",
                {"asset_id": "secret", "status": "inactive", "reason": "r", "expected_version": 9},
            ),
            ("get_change_records", {"asset_id": "secret"}),
        ],
    )
    async def test_an_asset_of_another_tenant_does_not_exist(
        self, cmdb: CmdbUnderTest, tools: Tools, tool: str, arguments: dict[str, Any]
    ) -> None:
        await cmdb.put([asset("secret")], tenant="other")
        await tools.call(
            "update_asset_status",
            tenant="other",
            asset_id="secret",
            status="maintenance",
            reason="its own",
        )

        async def refusal(named: dict[str, Any]) -> str:
            with pytest.raises(AssetNotFound) as caught:
                await tools.call(tool, **named)
            return str(caught.value)

        theirs = await refusal(arguments)
        nobodys = await refusal(
            {
                name: value.replace("secret", "absent") if isinstance(value, str) else value
                for name, value in arguments.items()
            }
        )

        assert theirs.replace("secret", "absent") == nobodys
        (untouched,) = (await tools.call("query_assets", tenant="other"))["assets"]
        assert (untouched["status"], untouched["version"]) == ("maintenance", 2)

    async def test_relations_of_other_tenants_are_not_followed(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("a"), asset("b")], [("a", "b", "uses")], tenant="other")
        await cmdb.put([asset("a"), asset("b")])

        found = await tools.call("get_service_topology", service_name="a")

        assert _ids(found["nodes"]) == ["a"]


class TestTopology:
    @pytest.mark.parametrize(
        ("arguments", "nodes"),
        [
            ({"service_name": "shop"}, {"web": 0, "api": 1, "app1": 1, "app2": 2, "db1": 2}),
            ({"service_name": "web", "depth": 1}, {"web": 0, "api": 1, "app1": 1}),
            ({"service_name": "db1", "direction": "down"}, {"db1": 0}),
            ({"service_name": "db1", "direction": "up"}, {"db1": 0, "api": 1, "web": 2}),
            ({"service_name": "app1", "direction": "up", "depth": 1}, {"app1": 0, "web": 1}),
            # Down and up are not mixed: what else runs on the host of a service is not around it.
            ({"service_name": "app1", "depth": 20}, {"app1": 0, "web": 1, "api": 2}),
            ({"service_name": "web", "max_nodes": 2}, {"web": 0, "api": 1}),
        ],
    )
    async def test_direction_depth_and_number_of_nodes_bound_it(
        self, cmdb: CmdbUnderTest, tools: Tools, arguments: dict[str, Any], nodes: dict[str, int]
    ) -> None:
        await cmdb.put(LANDSCAPE, RELATIONS)

        found = await tools.call("get_service_topology", **arguments)

        assert {node["id"]: node["depth"] for node in found["nodes"]} == nodes
        assert found["truncated"] == ("max_nodes" in arguments)
        assert found["total"] == (5 if "max_nodes" in arguments else len(nodes))

    async def test_nodes_and_edges_have_the_fields_of_the_contract(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put(LANDSCAPE, RELATIONS)

        found = await tools.call("get_service_topology", service_name="api", direction="down")

        assert found["nodes"][0] == {
            "id": "api",
            "name": "api",
            "type": "application",
            "status": "active",
            "depth": 0,
        }
        assert found["edges"] == [
            {"from": origin, "to": target, "type": kind}
            for origin, target, kind in sorted(RELATIONS)
        ]

    async def test_an_id_goes_before_a_name_and_a_name_may_have_several_assets(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("x", name="n"), asset("y", name="n"), asset("z", name="x")])

        by_id = await tools.call("get_service_topology", service_name="x")
        by_name = await tools.call("get_service_topology", service_name="n")

        assert _ids(by_id["nodes"]) == ["x"]
        assert _ids(by_name["nodes"]) == ["x", "y"]

    async def test_a_relation_to_itself_and_parallel_ones_are_kept_once_each(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        relations = [("a", "a", "calls"), ("a", "b", "calls"), ("a", "b", "runs_on")]
        await cmdb.put([asset("a"), asset("b")], relations)

        found = await tools.call("get_service_topology", service_name="a", depth=20)

        assert _ids(found["nodes"]) == ["a", "b"]
        assert [(edge["from"], edge["to"], edge["type"]) for edge in found["edges"]] == relations

    async def test_the_text_is_a_picture_of_it(self, cmdb: CmdbUnderTest, tools: Tools) -> None:
        await cmdb.put(LANDSCAPE, RELATIONS)

        answer = await tools.present("get_service_topology", service_name="app2", direction="up")

        assert (
            "```mermaid\n"
            "flowchart LR\n"
            '  n0["app2: app2.test (maintenance)"]\n'
            '  n1(["api"])\n'
            '  n2(["web: shop"])\n'
            '  n1 -->|"runs_on"| n0\n'
            '  n1 -->|"calls"| n2\n'
            '  n2 -->|"calls"| n1\n'
            "  classDef resting stroke-dasharray: 4 4\n"
            "  class n0 resting\n"
            "```" in answer.text
        )

    async def test_ten_thousand_nodes_with_cycles_are_counted_and_the_nearest_shown(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        # A tree with ten branches at each node, every leaf of which points back at the root.
        names = [f"n{number:05}" for number in range(10_000)]
        relations = [
            (names[(number - 1) // 10], names[number], "uses") for number in range(1, 10_000)
        ]
        relations += [(names[number], names[0], "uses") for number in range(1_000, 10_000)]
        await cmdb.put([asset(name) for name in names], relations)

        whole = await cmdb.backend.get_topology(
            "default", "n00000", direction=Direction.DOWN, depth=20, most_nodes=10_000
        )
        shown = await tools.present(
            "get_service_topology", service_name="n00000", direction="down", max_nodes=500
        )

        assert {node.id for node in whole.nodes} == set(names)
        assert len(whole.edges) == len(relations)
        structured = shown.structured
        assert structured["total"] == 1 + 10 + 100 + 1_000
        assert structured["truncated"]
        assert _ids(structured["nodes"]) == names[: len(structured["nodes"])]
        assert len(structured["nodes"]) > 111
        sent = json.dumps(structured, separators=(",", ":"))
        assert len(sent.encode()) + len(shown.text.encode()) < 64 * 1024

    async def test_more_than_ten_thousand_nodes_are_not_counted(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put(
            [asset("hub"), *(asset(f"n{number}") for number in range(10_000))],
            [("hub", f"n{number}", "uses") for number in range(10_000)],
        )

        answer = await tools.present("get_service_topology", service_name="hub", max_nodes=2)

        assert answer.structured["total"] is None
        assert "The nearest 2 of more than 10000 assets; raise max_nodes" in answer.text

    @pytest.mark.parametrize(
        ("asked", "allowed", "raised"), [(2, 500, True), (500, 500, False), (3, 2, False)]
    )
    async def test_how_to_get_more_is_told_and_helps(
        self, cmdb: CmdbUnderTest, tools: Tools, asked: int, allowed: int, raised: bool
    ) -> None:
        inner = [f"n{number:03}" for number in range(600)]
        outer = {name: f"beyond-{name}" for name in inner}
        await cmdb.put(
            [asset(name) for name in ("hub", *inner, *outer.values())],
            [
                *(("hub", name, "uses") for name in inner),
                *((*pair, "uses") for pair in outer.items()),
            ],
        )

        shown = await tools.present(
            "get_service_topology", service_name="hub", max_nodes=asked, max_items=allowed
        )

        more = shown.structured["more"]
        last = shown.structured["nodes"][-1]["id"]
        assert f"; {more}." in shown.text
        assert ("raise max_nodes (at most 500)" in more) == raised
        further = await tools.call("get_service_topology", service_name=last, direction="down")
        assert _ids(further["nodes"]) == [last, outer[last]]

    async def test_nothing_is_told_where_all_is_shown(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("web")])

        found = await tools.call("get_service_topology", service_name="web")

        assert (found["truncated"], found["more"]) == (False, None)


class TestUpdateStatus:
    async def test_it_returns_before_and_after_and_writes_a_change_record(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1")])

        done = await tools.call(
            "update_asset_status", user="bob", asset_id="db1", status="maintenance", reason="disk"
        )
        history = await tools.call("get_change_records", asset_id="db1")

        assert done["changed"]
        assert (done["before"]["status"], done["after"]["status"]) == ("active", "maintenance")
        assert (done["before"]["version"], done["after"]["version"]) == (1, 2)
        assert done["after"]["last_updated"] > done["before"]["last_updated"]
        (record,) = history["changes"]
        assert record["id"] == done["change_id"]
        assert (record["user"], record["reason"], record["request_id"]) == ("bob", "disk", "r-1")
        assert record["change"] == "status: active -> maintenance"
        assert record["before"].keys() == {"status", "version", "last_updated"}
        assert (await tools.call("query_assets"))["assets"] == [done["after"]]

    async def test_the_status_it_has_already_changes_nothing(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1")])

        answer = await tools.present(
            "update_asset_status", asset_id="db1", status="active", reason="r"
        )

        assert "db1 is active already; nothing was changed." in answer.text
        assert answer.structured["after"]["version"] == 1
        assert (await tools.call("get_change_records", asset_id="db1"))["total"] == 0

    @pytest.mark.parametrize("expected", [{"expected_version": 2}, {"expected_status": "inactive"}])
    async def test_an_asset_that_is_not_as_expected_stays(
        self, cmdb: CmdbUnderTest, tools: Tools, expected: dict[str, Any]
    ) -> None:
        await cmdb.put([asset("db1")])

        with pytest.raises(AssetChanged, match=r"it is active at version 1 .* nothing was changed"):
            await tools.call(
                "update_asset_status", asset_id="db1", status="maintenance", reason="r", **expected
            )

        assert (await tools.call("query_assets"))["assets"][0]["status"] == "active"
        assert (await tools.call("get_change_records", asset_id="db1"))["total"] == 0

    async def test_an_asset_that_is_as_expected_is_changed(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1")])

        done = await tools.call(
            "update_asset_status",
            asset_id="db1",
            status="inactive",
            reason="r",
            expected_version=1,
            expected_status="active",
        )

        assert done["changed"]

    async def test_of_many_at_once_that_expect_one_version_exactly_one_wins(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1")])

        outcomes = await asyncio.gather(
            *(
                tools.call(
                    "update_asset_status",
                    user=f"user-{number}",
                    asset_id="db1",
                    status="maintenance",
                    reason="race",
                    expected_version=1,
                )
                for number in range(20)
            ),
            return_exceptions=True,
        )

        lost = [outcome for outcome in outcomes if isinstance(outcome, AssetChanged)]
        (won,) = (outcome for outcome in outcomes if isinstance(outcome, dict))
        (record,) = (await tools.call("get_change_records", asset_id="db1"))["changes"]
        assert len(lost) == 19
        assert won["change_id"] == record["id"]

    async def test_changes_at_once_are_each_recorded_in_one_order(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1")])
        statuses = ["maintenance", "inactive", "active"] * 5

        done = await asyncio.gather(
            *(
                tools.call("update_asset_status", asset_id="db1", status=status, reason="r")
                for status in statuses
            )
        )

        records = (await tools.call("get_change_records", asset_id="db1", limit=100))["changes"]
        assert len(records) == sum(one["changed"] for one in done)
        versions = [record["after"]["version"] for record in records]
        assert versions == list(range(len(records) + 1, 1, -1))
        for newer, older in itertools.pairwise(records):
            assert newer["before"]["status"] == older["after"]["status"]
            assert newer["time"] >= older["time"]

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            ({"status": "broken"}, "status: Input should be 'active', 'inactive' or 'maintenance'"),
            ({"reason": ""}, "reason: String should have at least 1 character"),
            ({"reason": " \t\n"}, "reason: must not be blank"),
            ({"expected_version": 0}, "expected_version: Input should be greater than or equal"),
            ({"asset_id": ""}, "asset_id: String should have at least 1 character"),
            ({"force": True}, "force: unknown argument; known arguments: asset_id, status"),
        ],
    )
    async def test_arguments_that_do_not_fit_are_named(
        self, tools: Tools, arguments: dict[str, Any], fault: str
    ) -> None:
        good = {"asset_id": "db1", "status": "active", "reason": "r"}

        with pytest.raises(InvalidArguments) as caught:
            await tools.call("update_asset_status", **(good | arguments))

        assert fault in str(caught.value)


class TestChangeRecords:
    async def test_the_newest_comes_first_a_page_at_a_time(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1"), asset("db2")])
        now = datetime.now(UTC)
        for number in range(5):
            await cmdb.record("db1", now - timedelta(minutes=5 - number), f"reason {number}")
        await cmdb.record("db2", now, "another asset's")

        first = await tools.call("get_change_records", asset_id="db1", limit=3)
        await cmdb.record("db1", now, "in between")
        second = await tools.call(
            "get_change_records", asset_id="db1", limit=3, cursor=first["next_cursor"]
        )

        reasons = [change["reason"] for change in first["changes"] + second["changes"]]
        assert reasons == [f"reason {number}" for number in (4, 3, 2, 1, 0)]
        assert (first["total"], second["total"]) == (5, 6)
        assert (second["truncated"], second["next_cursor"]) == (False, None)

    @pytest.mark.parametrize(
        ("time_range", "count"), [("7d", 1), ("30m", 0), ("2h", 1), ("2w", 2), ("9999w", 3)]
    )
    async def test_the_time_range_bounds_it(
        self, cmdb: CmdbUnderTest, tools: Tools, time_range: str, count: int
    ) -> None:
        await cmdb.put([asset("db1")])
        now = datetime.now(UTC)
        for age in (timedelta(days=400), timedelta(days=8), timedelta(hours=1)):
            await cmdb.record("db1", now - age, "r")

        found = await tools.call("get_change_records", asset_id="db1", time_range=time_range)

        assert found["total"] == len(found["changes"]) == count

    async def test_the_history_of_a_removed_asset_is_still_there(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1")])
        await cmdb.record("gone", datetime.now(UTC) - timedelta(days=30), "scrapped")

        recent = await tools.call("get_change_records", asset_id="gone")
        older = await tools.call("get_change_records", asset_id="gone", time_range="60d")

        assert (recent["total"], older["total"]) == (0, 1)

    @pytest.mark.parametrize("time_range", ["7", "0d", "-1d", "7 d", "1y", "99999d", "7d\n"])
    async def test_other_time_ranges_are_refused(self, tools: Tools, time_range: str) -> None:
        with pytest.raises(InvalidArguments, match="time_range: must be a number from 1 to 9999"):
            await tools.call("get_change_records", asset_id="db1", time_range=time_range)

    @pytest.mark.parametrize("last", [0, -1, "1", True, 2**63])
    async def test_a_forged_cursor_is_refused(self, tools: Tools, last: object) -> None:
        cursor = forged(ChangeArguments(asset_id="db1"), id=last)

        with pytest.raises(InvalidArguments, match="not a cursor of this tool"):
            await tools.call("get_change_records", asset_id="db1", cursor=cursor)

    async def test_a_cursor_of_another_asset_is_refused(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1"), asset("db2")])
        for number in range(2):
            await cmdb.record("db1", datetime.now(UTC), str(number))
        cursor = (await tools.call("get_change_records", asset_id="db1", limit=1))["next_cursor"]

        with pytest.raises(InvalidArguments, match="other arguments"):
            await tools.call("get_change_records", asset_id="db2", cursor=cursor)


class TestAwkwardIds:
    @pytest.mark.parametrize("asset_id", AWKWARD_IDS)
    async def test_any_text_can_be_an_id(
        self, cmdb: CmdbUnderTest, tools: Tools, asset_id: str
    ) -> None:
        await cmdb.put([asset(asset_id), asset("other")], [(asset_id, "other", "uses")])

        done = await tools.call(
            "update_asset_status", asset_id=asset_id, status="inactive", reason="r"
        )
        found = await tools.call("get_service_topology", service_name=asset_id)
        history = await tools.call("get_change_records", asset_id=asset_id)

        assert done["after"]["id"] == asset_id
        assert _ids(found["nodes"]) == [asset_id, "other"]
        assert history["total"] == 1

    @pytest.mark.parametrize("asset_id", [".", "..", "../assets", "absent"])
    async def test_an_id_that_names_nothing_is_not_found(self, tools: Tools, asset_id: str) -> None:
        with pytest.raises(AssetNotFound):
            await tools.call("get_change_records", asset_id=asset_id)


class TestDocuments:
    async def test_the_list_and_one_asset_are_documents(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put(LANDSCAPE, RELATIONS)
        documents = {document.uri: document for document in tools.family.resources()}
        context = ToolContext(user="alice", tenant="default")

        listed = json.loads(await documents["enterprise://cmdb/assets"].read(context, {}))
        one = json.loads(
            await documents["enterprise://cmdb/assets/{id}"].read(context, {"id": "db1"})
        )

        assert _ids(listed["assets"]) == ["api", "app1", "app2", "db1", "web"]
        assert one["asset"] == listed["assets"][3]
        assert one["neighbours"]["edges"] == [{"from": "api", "to": "db1", "type": "depends_on"}]

    async def test_a_list_with_long_names_is_cut_and_goes_on_in_the_tool(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        ids = [f"{number:03}-{'x' * 252}" for number in range(200)]
        await cmdb.put(asset(each, name="é" * 250) for each in ids)
        (document,) = (one for one in tools.family.resources() if not one.parameters)

        text = await document.read(ToolContext(user="alice", tenant="default"), {})

        listed = json.loads(text)
        shown = len(listed["assets"])
        assert (listed["total"], listed["truncated"]) == (200, True)
        assert 10 < shown < 200
        assert len(text.encode()) < RESULT_BUDGET_BYTES
        following = await tools.call("query_assets", cursor=listed["next_cursor"], limit=1)
        assert _ids(following["assets"]) == [ids[shown]]

    async def test_an_asset_with_many_neighbours_is_cut(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        ids = [f"{number:03}-{'x' * 252}" for number in range(40)]
        every_two = [(one, other, "uses") for one in ids for other in ids if one != other]
        await cmdb.put([asset(each) for each in ids], every_two)
        (document,) = (one for one in tools.family.resources() if one.parameters)

        text = await document.read(ToolContext(user="alice", tenant="default"), {"id": ids[7]})

        neighbours = json.loads(text)["neighbours"]
        assert (neighbours["total"], neighbours["truncated"]) == (40, True)
        assert neighbours["nodes"][0]["id"] == ids[7]
        assert 1 < len(neighbours["nodes"]) < 40
        assert len(text.encode()) < RESULT_BUDGET_BYTES

    async def test_ids_are_completed_for_the_callers_tenant(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put(LANDSCAPE)
        await cmdb.put([asset("apple")], tenant="other")
        (template,) = (one for one in tools.family.resources() if one.parameters)
        assert template.complete is not None

        async def completed(text: str, tenant: str) -> list[str]:
            assert template.complete is not None
            return await template.complete("id", text, {}, ToolContext(user="a", tenant=tenant))

        assert await completed("ap", "default") == ["api", "app1", "app2"]
        assert await completed("ap", "other") == ["apple"]
        assert await completed("", "other") == ["apple"]
        assert await completed("\0", "other") == []

    async def test_an_asset_that_does_not_exist_has_no_document(self, tools: Tools) -> None:
        (template,) = (one for one in tools.family.resources() if one.parameters)

        with pytest.raises(AssetNotFound):
            await template.read(ToolContext(user="a", tenant="default"), {"id": "absent"})


class TestOutage:
    async def test_every_tool_names_the_cmdb_and_all_work_again_afterwards(
        self, cmdb: CmdbUnderTest, tools: Tools
    ) -> None:
        await cmdb.put([asset("db1")])
        calls: list[tuple[str, dict[str, Any]]] = [
            ("query_assets", {}),
            ("get_service_topology", {"service_name": "db1"}),
            ("update_asset_status", {"asset_id": "db1", "status": "inactive", "reason": "r"}),
            ("get_change_records", {"asset_id": "db1"}),
        ]

        async with cmdb.away():
            for name, arguments in calls:
                with pytest.raises(BackendUnavailable, match=r"^CMDB is not available") as caught:
                    await tools.call(name, **arguments)
                assert caught.value.retryable

        for name, arguments in calls:
            assert await tools.call(name, **arguments)
