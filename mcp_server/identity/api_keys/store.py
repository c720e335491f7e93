"""Makes, lists and revokes API keys, as the owner of the schema."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import asyncpg

from mcp_server.identity.api_keys.key import ApiKey, new_key

__all__ = ["KeyOptions", "KeyRow", "create_key", "list_keys", "revoke_key"]


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """What an API key is for.

    Attributes:
        account: the service account: the subject's id.
        networks: from where it is accepted; none: from everywhere.
        created_by: who makes it.
    """

    account: str
    tenant: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    networks: tuple[IPv4Network | IPv6Network, ...]
    expires_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is listed: without its secret, which nobody knows."""

    id: str
    account: str
    tenant: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    networks: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


async def create_key(connection: asyncpg.Connection, options: KeyOptions) -> ApiKey:
    """Store a new key and return it, for the only time."""
    key = new_key()
    await connection.execute(
        "INSERT INTO identity.api_keys "
        "(id, secret_hash, account, tenant, roles, scopes, networks, expires_at, created_by) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        key.id,
        key.secret_hash,
        options.account,
        options.tenant,
        options.roles,
        options.scopes,
        options.networks,
        options.expires_at,
        options.created_by,
    )
    return key


async def list_keys(connection: asyncpg.Connection) -> list[KeyRow]:
    """Return all keys, the oldest first."""
    rows = await connection.fetch(
        "SELECT id, account, tenant, roles, scopes, networks::text[] AS networks, created_at, "
        "created_by, expires_at, revoked_at, last_used_at FROM identity.api_keys "
        "ORDER BY created_at, id"
    )
    return [_key_row(dict(row)) for row in rows]


def _key_row(values: dict[str, Any]) -> KeyRow:
    lists = {name: tuple(values[name]) for name in ("roles", "scopes", "networks")}
    return KeyRow(**(values | lists))


async def revoke_key(connection: asyncpg.Connection, key_id: str) -> bool:
    """Revoke a key and return whether there is one with this id; once revoked, it stays so."""
    done = await connection.fetchval(
        "UPDATE identity.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 "
        "RETURNING id",
        key_id,
    )
    return done is not None
