"""The chains of the audit log: every planted manipulation is found, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mcp_server.audit import AuditReason, AuditRecord, AuditStore, AuditUnavailable, Phase
from mcp_server.audit.chain import FIRST, row_hash
from mcp_server.audit.heads import Head, HeadWriter, InvalidHead, public_key_of, read_heads
from mcp_server.audit.record import COLUMNS
from mcp_server.audit.verify import Report, verify
from mcp_server.infrastructure.database import Database
from mcp_server.redaction import redact_arguments
from mcp_server.settings import AuditSettings, Secret
from tests.integration.servers import PostgresServer

pytestmark = pytest.mark.anyio

_COPY = """
    INSERT INTO audit.events SELECT (jsonb_populate_record(e,
        jsonb_build_object('event_id', gen_random_uuid()) || '{changes}')).*
    FROM audit.events e WHERE seq = {seq} AND chain = $1
"""
_ALONE = """
    INSERT INTO audit.events (time, event_id, request_id, phase, node, transport, method)
    SELECT now() + interval '{later}', gen_random_uuid(), 'r', 'outcome', '{node}', 'mcp', 'm'
    WHERE $1::uuid IS NOT NULL
"""
_SET = "UPDATE audit.events SET {change} WHERE seq = 7 AND chain = $1"
# The manipulations of an owner of the database ($1: a chain of 40 rows), and the names of the findings.
_MANIPULATIONS = {
    "an edited text": (_SET.format(change="user_id = 'bob'"), "changed"),
    "an edited argument": (_SET.format(change="arguments = '{\"n\": 8}'"), "changed"),
    "an edited time": (_SET.format(change="time = time + interval '1 microsecond'"), "changed"),
    "an emptied column": (_SET.format(change="client_ip = NULL"), "changed"),
    "a removed row": ("DELETE FROM audit.events WHERE seq = 7 AND chain = $1", "missing"),
    "the removed first row": ("DELETE FROM audit.events WHERE seq = 1 AND chain = $1", "missing"),
    "removed last rows": ("DELETE FROM audit.events WHERE seq > 30 AND chain = $1", "cut_off"),
    "a removed chain": ("DELETE FROM audit.events WHERE chain = $1", "cut_off"),
    "reordered rows": (
        "UPDATE audit.events SET seq = 15 - seq WHERE seq IN (7, 8) AND chain = $1",
        "changed",
    ),
    "a copied row": (_COPY.format(changes="{}", seq=7), "inserted"),
    "a row of a chain that no node signed": (
        _COPY.format(changes=f'{{"chain": "{uuid4()}"}}', seq=1),
        "inserted",
    ),
    "a row without a chain": (_ALONE.format(later="0", node="mcp1"), "unchained"),
    "a row of a node that does not exist": (_ALONE.format(later="2 days", node="x"), "unchained"),
}


def _record(number: int = 0, **changes: Any) -> AuditRecord:
    values: dict[str, Any] = {
        "time": datetime.now(UTC),
        "event_id": uuid4(),
        "request_id": f"r-{number}",
        "phase": Phase.OUTCOME,
        "node": "mcp1",
        "transport": "mcp",
        "method": "tools/call",
        "user_id": "älice \U0001f600",
        "client_ip": ip_address("2001:db8::1"),
        "duration_ms": 0.1 + number,
        "reasons": [AuditReason("code", "message")],
        # jsonb writes these numbers in another way than it got them.
        "arguments": redact_arguments(
            {
                "n": number,
                "b": [1e22, 1e-7, 1.50, -0.0, 12345678901234567890, True],
                "a": {"z": "\u2028"},
            }
        ),
        "judged": redact_arguments({"subject": {"roles": ["x"] * 40}, "time": "t"}),
        "intent_id": uuid4(),
        "result_sha256": bytes(range(32)),
        "result_bytes": 5,
    }
    return AuditRecord(**(values | changes))


@pytest.fixture
def settings(tmp_path: Path) -> AuditSettings:
    key = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (tmp_path / "key").write_bytes(key)
    return AuditSettings(
        signing_key=Secret(file=tmp_path / "key"), heads=tmp_path / "made" / "heads"
    )


@pytest.fixture
async def make_store(
    database: Database, settings: AuditSettings
) -> AsyncIterator[Callable[[], AuditStore]]:
    stores = []

    def make() -> AuditStore:
        stores.append(AuditStore(database, HeadWriter(settings, "mcp1")))
        return stores[-1]

    yield make
    for store in stores:
        await store.stop()


def _heads(settings: AuditSettings) -> list[Head]:
    assert settings.heads is not None
    assert settings.signing_key is not None
    heads = read_heads([settings.heads], [public_key_of(settings.signing_key.reveal())])
    return [head for head in heads if isinstance(head, Head)]


async def _write(store: AuditStore, rows: int = 40, **changes: Any) -> None:
    await store.start()
    await asyncio.gather(*(store.commit(_record(number, **changes)) for number in range(rows)))


async def _verified(
    owner: asyncpg.Connection, settings: AuditSettings, now: datetime | None = None
) -> Report:
    return await verify(owner, _heads(settings), retention_days=90, now=now)


async def test_what_the_servers_wrote_is_accepted_over_restarts_and_two_processes(
    make_store: Callable[[], AuditStore], owner: asyncpg.Connection, settings: AuditSettings
) -> None:
    for _ in range(2):
        one, other = make_store(), make_store()
        await asyncio.gather(_write(one), _write(other))
        await one.stop()
        await other.stop()

    report = await _verified(owner, settings)

    assert report.findings == []
    assert (report.rows, report.chains, report.unsigned) == (160, 4, 0)


async def test_each_day_has_chains_of_its_own_that_are_dropped_with_it(
    make_store: Callable[[], AuditStore], owner: asyncpg.Connection, settings: AuditSettings
) -> None:
    store = make_store()
    now = datetime.now(UTC)
    for days in (100, 91, 1, 0):
        await _write(store, time=now - timedelta(days=days))
    await store.stop()
    before = await _verified(owner, settings)

    await owner.fetchval("SELECT audit.maintain(90, 7)")
    after = await _verified(owner, settings)

    assert before.findings == []
    assert (before.rows, before.chains) == (160, 4)
    assert after.findings == []
    assert (after.rows, after.chains, after.expired) == (80, 2, 2)


@pytest.mark.parametrize("manipulation", _MANIPULATIONS)
async def test_a_manipulation_is_found(
    make_store: Callable[[], AuditStore],
    owner: asyncpg.Connection,
    settings: AuditSettings,
    manipulation: str,
) -> None:
    for _ in range(2):
        store = make_store()
        await _write(store)
        await store.stop()
    statement, kind = _MANIPULATIONS[manipulation]

    chain = await owner.fetchval("SELECT chain FROM audit.events LIMIT 1")

    changed = await owner.execute(statement, chain)
    report = await _verified(owner, settings)

    assert not changed.endswith(" 0")
    # The hash of a row that was put into a foreign chain does not fit either.
    assert kind in {finding.kind for finding in report.findings} <= {kind, "changed"}


async def test_a_chain_that_was_written_again_does_not_lead_to_its_signed_head(
    make_store: Callable[[], AuditStore],
    database: Database,
    owner: asyncpg.Connection,
    settings: AuditSettings,
) -> None:
    store = make_store()
    await _write(store)
    await store.stop()
    (chain,) = await owner.fetchrow("SELECT DISTINCT chain FROM audit.events")
    await owner.execute("DELETE FROM audit.events")
    forger = AuditStore(database)
    await _write(forger)
    await forger.stop()
    # The whole history under the old name, with hashes that fit: the forger can compute them too.
    await _link_again(owner, chain)

    report = await _verified(owner, settings)

    assert {finding.kind for finding in report.findings} == {"rewritten"}


async def _link_again(owner: asyncpg.Connection, chain: Any) -> None:

    last = FIRST
    rows = await owner.fetch(f"SELECT {', '.join(COLUMNS)}, seq FROM audit.events ORDER BY seq")
    for *values, seq in (tuple(row.values()) for row in rows):
        last = row_hash(last, chain, seq, values)
        await owner.execute(
            "UPDATE audit.events SET chain = $1, hash = $2 WHERE seq = $3", chain, last, seq
        )


async def test_rows_that_were_refused_leave_no_gap(
    make_store: Callable[[], AuditStore], owner: asyncpg.Connection, settings: AuditSettings
) -> None:
    store = make_store()
    twin = _record()
    await store.start()
    await store.commit(twin)

    results = await asyncio.gather(
        *(store.commit(_record(number)) for number in range(5)),
        store.commit(twin),
        *(store.commit(_record(number)) for number in range(5)),
        return_exceptions=True,
    )
    await store.stop()

    assert [type(result) for result in results].count(AuditUnavailable) == 1
    report = await _verified(owner, settings)
    assert report.findings == []
    assert (report.rows, report.chains) == (11, 1)


async def test_a_crash_of_postgresql_under_load_breaks_no_chain(
    make_store: Callable[[], AuditStore],
    postgres: PostgresServer,
    database: Database,
    settings: AuditSettings,
) -> None:
    store = make_store()
    await store.start()
    acknowledged = 0
    running = True

    async def client() -> None:
        nonlocal acknowledged
        while running:
            try:
                await store.commit(_record())
                acknowledged += 1
            except AuditUnavailable:
                await asyncio.sleep(0.02)

    clients = [asyncio.create_task(client()) for _ in range(20)]
    async with asyncio.timeout(120):
        while acknowledged < 100:  # noqa: ASYNC110 (servers have no event to wait for)
            await asyncio.sleep(0.05)
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.start)
        before = acknowledged
        while acknowledged < before + 20:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    running = False
    await asyncio.gather(*clients)
    await store.stop()

    async with database.connection() as connection:
        report = await verify(connection, _heads(settings), retention_days=90)
    assert report.findings == []
    assert report.rows >= acknowledged
    assert report.chains >= 2


async def test_rows_after_the_last_head_of_a_crash_are_counted_and_later_ones_found(
    make_store: Callable[[], AuditStore], owner: asyncpg.Connection, settings: AuditSettings
) -> None:
    store = make_store()
    await _write(store)
    # Without its end: the head before the first row is the only one, as after kill -9.
    heads = _heads(settings)
    assert [head.seq for head in heads] == [0]

    fresh = await verify(owner, heads, retention_days=90)
    old = [dataclasses.replace(head, time=head.time - timedelta(hours=1)) for head in heads]
    late = await verify(owner, old, retention_days=90)

    assert (fresh.findings, fresh.unsigned) == ([], 40)
    assert [finding.kind for finding in late.findings] == ["unsigned"]


async def test_a_head_with_another_content_or_key_is_invalid(
    make_store: Callable[[], AuditStore], settings: AuditSettings
) -> None:
    store = make_store()
    await _write(store)
    await store.stop()
    assert settings.heads is not None
    assert settings.signing_key is not None
    (file,) = settings.heads.iterdir()
    lines = file.read_text().splitlines()
    assert file.stat().st_mode & 0o777 == 0o600
    key = public_key_of(settings.signing_key.reveal())
    other = Ed25519PrivateKey.generate().public_key()

    file.write_text("\n".join([lines[-1].replace('"seq":40', '"seq":39'), "nonsense", "{}"]) + "\n")
    changed = list(read_heads([settings.heads], [key]))
    file.write_text(lines[-1] + "\n")
    foreign = list(read_heads([settings.heads], [other]))

    assert [type(head) for head in changed + foreign] == [InvalidHead] * 4
    assert "has a wrong signature" in str(changed[0])
    assert "key that was not given" in str(foreign[0])


async def test_a_directory_that_takes_no_heads_does_not_stop_the_log(
    make_store: Callable[[], AuditStore], owner: asyncpg.Connection, settings: AuditSettings
) -> None:
    store = make_store()
    assert settings.heads is not None
    settings.heads.rmdir()

    await _write(store)

    assert await owner.fetchval("SELECT count(*) FROM audit.events") == 40
