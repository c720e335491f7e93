"""Verifies API keys against the table identity.api_keys."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass

import asyncpg

from mcp_server.identity.api_keys.key import ApiKey, parse_key
from mcp_server.identity.subject import AuthenticationError, IdentityUnavailable, Subject
from mcp_server.infrastructure.database import Database, DatabaseUnavailable
from mcp_server.settings import API_KEYS

__all__ = ["ApiKeys"]

# A key that is revoked is refused by every node after this time at the latest.
_FRESH_S = 3.0
_CACHE_SIZE = 4096
_USE_NOTED_S = 60.0

_SELECT = """
    SELECT secret_hash, account, tenant, roles, scopes, networks::text[] AS networks,
        extract(epoch FROM created_at)::float8 AS created_at,
        extract(epoch FROM expires_at)::float8 AS expires_at,
        revoked_at IS NOT NULL AS revoked
    FROM identity.api_keys WHERE id = $1
"""
_NOTE_USE = """
    UPDATE identity.api_keys SET last_used_at = now()
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
"""


@dataclass(slots=True)
class _Known:
    subject: Subject
    read_at: float
    use_noted_at: float


class ApiKeys:
    """Turns an API key into the subject of its service account.

    A key is read again every few seconds, so that a busy client costs a query now and then, and a
    revoked key soon ends. The cache is bounded; its key is a hash of the whole API key.

    Args:
        database: an open pool.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def verify(self, token: str) -> Subject:
        """Return the subject of an API key; see `TokenVerifier.verify`.

        Every key that is not accepted has the same message, whatever is wrong with it.
        """
        key = parse_key(token)
        if key is None:
            raise AuthenticationError(
                "the API key is mistyped: it has another form, or its checksum is wrong"
            )
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        now = time.monotonic()
        if known is None or now - known.read_at >= _FRESH_S:
            known = await self._read(key, digest, known)
        if known.subject.expired():
            raise _not_accepted()
        return known.subject

    async def _read(self, key: ApiKey, digest: bytes, known: _Known | None) -> _Known:
        self._known.pop(digest, None)
        noted_at = known.use_noted_at if known else -_USE_NOTED_S
        now = time.monotonic()
        try:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(_SELECT, key.id)
                if (
                    row is None
                    or not hmac.compare_digest(row["secret_hash"], key.secret_hash)
                    or row["revoked"]
                ):
                    raise _not_accepted()
                if now - noted_at >= _USE_NOTED_S:
                    noted_at = now
                    # A standby that cannot write answers calls all the same.
                    with contextlib.suppress(asyncpg.ReadOnlySQLTransactionError):
                        await connection.execute(_NOTE_USE, key.id)
        except DatabaseUnavailable as error:
            raise IdentityUnavailable(
                "API keys cannot be verified at the moment; try again"
            ) from error
        self._known[digest] = _Known(_subject(key, row), now, noted_at)
        if len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return self._known[digest]


def _not_accepted() -> AuthenticationError:
    return AuthenticationError("the API key is not accepted; ask its administrator for a new one")


def _subject(key: ApiKey, row: asyncpg.Record) -> Subject:
    return Subject(
        id=row["account"],
        tenant=row["tenant"],
        roles=tuple(sorted(row["roles"])),
        scopes=tuple(row["scopes"]),
        token_id=key.id,
        networks=tuple(row["networks"]),
        expires_at=row["expires_at"],
        issued_at=row["created_at"],
        issuer=API_KEYS,
        method="api_key",
    )
