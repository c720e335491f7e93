"""CMDBs to test against, of every kind behind one face, and a way to call the tools over them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from mcp_server.infrastructure.database import Database
from mcp_server.settings import CmdbSettings, Secret
from mcp_server.tools.catalog import Catalog, ToolContext
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.family import Cmdb
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from mcp_server.tools.cmdb.rest import RestCmdb
from mcp_server.tools.presentation import Presented, present
from tests.integration.forged import CIPHER
from tests.integration.reference_cmdb import ReferenceCmdb
from tests.integration.results import hold
from tests.integration.servers import PostgresServer

__all__ = ["CmdbUnderTest", "Postgres", "Rest", "Tools", "asset"]

Relations = Iterable[tuple[str, str, str]]


def asset(asset_id: str, **changes: Any) -> dict[str, Any]:
    """Return an asset as a CMDB holds it."""
    return {
        "id": asset_id,
        "name": f"{asset_id}.test",
        "type": "server",
        "environment": "prod",
        "status": "active",
        "ip_address": None,
        "owner": None,
        **changes,
    }


class CmdbUnderTest(Protocol):
    """What every kind offers to the tests."""

    backend: CmdbBackend

    async def put(
        self, assets: Iterable[Mapping[str, Any]], relations: Relations = (), tenant: str = ...
    ) -> None:
        """Enter assets and relations (from, to, type)."""
        ...

    async def record(self, asset_id: str, time: datetime, reason: str) -> None:
        """Enter a change record of the past."""
        ...

    def away(self) -> Any:
        """Be away for the length of the (asynchronous) block."""
        ...


class Postgres:
    """The embedded CMDB."""

    def __init__(
        self, database: Database, owner: asyncpg.Connection, server: PostgresServer
    ) -> None:
        self.backend: CmdbBackend = PostgresCmdb(database)
        self._owner = owner
        self._server = server

    async def put(
        self,
        assets: Iterable[Mapping[str, Any]],
        relations: Relations = (),
        tenant: str = "default",
    ) -> None:
        """See `CmdbUnderTest.put`."""
        async with self._owner.transaction():
            await self._enter(tenant)
            await self._owner.execute(
                "INSERT INTO cmdb.assets "
                "(tenant, id, name, type, environment, status, ip_address, owner) "
                "SELECT $1, id, name, type, environment, status, ip_address, owner "
                "FROM jsonb_populate_recordset(NULL::cmdb.assets, $2::jsonb)",
                tenant,
                json.dumps(list(assets)),
            )
            rows = list(relations)
            await self._owner.execute(
                "INSERT INTO cmdb.relations (tenant, from_id, to_id, type) "
                "SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])",
                tenant,
                *([row[column] for row in rows] for column in range(3)),
            )

    async def record(self, asset_id: str, time: datetime, reason: str) -> None:
        """See `CmdbUnderTest.record`."""
        async with self._owner.transaction():
            await self._enter("default")
            await self._owner.execute(
                "INSERT INTO cmdb.changes "
                "(tenant, asset_id, time, user_id, request_id, reason, before, after) "
                "VALUES ('default', $1, $2, 'past', '', $3, '{}', '{}')",
                asset_id,
                time,
                reason,
            )

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """See `CmdbUnderTest.away`."""
        with self._server.stopped():
            yield

    async def _enter(self, tenant: str) -> None:
        await self._owner.execute("SELECT set_config('mcp.tenant', $1, true)", tenant)


class Rest:
    """The reference service and our client of it."""

    def __init__(self, service: ReferenceCmdb, url: str, key_file: Path) -> None:
        key_file.write_text(service.key)
        self.service = service
        self.url = url
        self.key_file = key_file
        self.backend: CmdbBackend = RestCmdb(
            CmdbSettings.model_validate(
                {"backend": "rest", "api_url": url, "key": Secret(file=key_file), "timeout_s": 20}
            )
        )
        self._serving = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path) -> AsyncIterator[Rest]:
        """Start the service and the client."""
        service = ReferenceCmdb("reference-key")
        async with AsyncExitStack() as first:
            url = await first.enter_async_context(service.running())
            rest = cls(service, url, directory / "cmdb_key")
            rest._serving = first.pop_all()
        await rest.backend.start()
        try:
            yield rest
        finally:
            await rest.backend.stop()
            await rest._serving.aclose()

    async def put(
        self,
        assets: Iterable[Mapping[str, Any]],
        relations: Relations = (),
        tenant: str = "default",
    ) -> None:
        """See `CmdbUnderTest.put`."""
        self.service.put(tenant, assets, relations)

    async def record(self, asset_id: str, time: datetime, reason: str) -> None:
        """See `CmdbUnderTest.record`."""
        self.service.record("default", asset_id, time, reason)

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """See `CmdbUnderTest.away`."""
        await self._serving.aclose()
        yield
        await self._serving.enter_async_context(self.service.running())


class Tools:
    """Calls the tools of a family as the gate does: checked arguments in, a presented answer out."""

    def __init__(self, backend: CmdbBackend) -> None:
        self.family = Cmdb(backend, cipher=CIPHER)
        self._catalog = Catalog(self.family.tools())

    async def present(
        self,
        name: str,
        *,
        tenant: str = "default",
        user: str = "alice",
        max_items: int = 500,
        **arguments: Any,
    ) -> Presented:
        """Call `cmdb_<name>` and return what the caller would get.

        Args:
            max_items: the most rows that the policy lets the caller have at once.
        """
        tool = self._catalog.find(f"cmdb_{name}")
        assert tool is not None
        context = ToolContext(user=user, tenant=tenant, request_id="r-1", max_items=max_items)
        parsed = tool.parse(arguments)
        presented = present(tool, parsed, await tool.run(parsed, context))
        hold(tool, presented.structured, fields=arguments.get("fields"))
        return presented

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call `cmdb_<name>` and return the structured part of the answer."""
        return (await self.present(name, **arguments)).structured
