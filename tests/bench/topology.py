"""The topology of 10,000 assets on PostgreSQL, beside a plain select of the same rows, in one run.

    python -m tests.bench.topology [--runs 20]

Starts a real PostgreSQL (TLS) on loopback with a migrated database. The assets are a tree with ten
branches at each node, every leaf of which points back at the root, so that there are 9,000 cycles;
the search goes from the root in both directions, 20 relations far. The select reads the same assets
and relations, over the same connection, into the same JSON; what the topology takes longer is the
search. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from mcp_server.infrastructure.database import Database, connect
from mcp_server.infrastructure.database.migrate import upgrade
from mcp_server.tools.cmdb.model import Direction
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from tests.integration.cmdbs import Postgres, asset
from tests.integration.servers import Authority, PostgresServer

_NODES = 10_000
_TENANT = "default"
_PLAIN = """
    SELECT
        (SELECT jsonb_agg(to_jsonb(one)) FROM (SELECT id, name, type, status FROM cmdb.assets) AS one),
        (SELECT jsonb_agg(jsonb_build_object('from', from_id, 'to', to_id, 'type', type))
         FROM cmdb.relations)
"""


async def _timed(work: Callable[[], Awaitable[object]], runs: int) -> list[float]:
    """Return how long each run took in milliseconds; a first one is not counted."""
    took = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        await work()
        took.append((time.perf_counter() - started) * 1000)
    return took[1:]


async def _measure(server: PostgresServer, runs: int) -> None:
    name = "bench_topology"
    server.create_database(name)
    settings = server.settings(name)
    await upgrade(settings, user=server.owner, password=server.owner_password)
    owner = await connect(settings, user=server.owner, password=server.owner_password)
    database = Database(settings)
    await database.start()
    cmdb = PostgresCmdb(database)
    names = [f"n{number:05}" for number in range(_NODES)]
    tree = [(names[(number - 1) // 10], names[number], "uses") for number in range(1, _NODES)]
    back = [(names[number], names[0], "uses") for number in range(_NODES // 10, _NODES)]
    await Postgres(database, owner, server).put([asset(one) for one in names], tree + back)
    await owner.execute("ANALYZE cmdb.assets")
    await owner.execute("ANALYZE cmdb.relations")
    await owner.close()

    async def plain() -> None:
        async with database.transaction(readonly=True) as connection:
            await connection.execute("SELECT set_config('mcp.tenant', $1, true)", _TENANT)
            await connection.fetchrow(_PLAIN)

    def topology(most_nodes: int) -> Callable[[], Awaitable[object]]:
        return lambda: cmdb.get_topology(
            _TENANT, names[0], direction=Direction.BOTH, depth=20, most_nodes=most_nodes
        )

    rows = {
        "plain select of all assets and relations": plain,
        "topology, all 10,000 assets returned": topology(_NODES),
        "topology, all found, the nearest 100 returned": topology(100),
    }
    medians: dict[str, float] = {}
    print("| what | median ms | slowest ms | / plain select |\n|---|---|---|---|")
    for row, work in rows.items():
        took = await _timed(work, runs)
        medians[row] = statistics.median(took)
        ratio = medians[row] / next(iter(medians.values()))
        print(f"| {row} | {medians[row]:.0f} | {max(took):.0f} | {ratio:.1f} |")
    await database.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="times that each is measured")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        directory.chmod(0o755)  # PostgreSQL runs as another user
        (directory / "pki").mkdir()
        server = PostgresServer(directory / "postgres", Authority(directory / "pki"))
        server.start()
        try:
            server.create_roles()
            asyncio.run(_measure(server, runs))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
