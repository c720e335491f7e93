"""`mcpctl apikey`: keys of service accounts."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mcp_server.cli.options import (
    config_option,
    database_ca_option,
    database_settings,
    fail,
    plain_errors,
)
from mcp_server.settings import DatabaseSettings, Secret, load_settings

if TYPE_CHECKING:
    import asyncpg

    from mcp_server.identity.api_keys.store import KeyRow

__all__ = ["apikey"]

_MAX_DAYS = 730
_HEADER = ("ID", "ACCOUNT", "TENANT", "ROLES", "NETWORKS", "STATE", "EXPIRES", "LAST USE")
_MAX_TEXT_LENGTH = 256
_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


@click.group()
def apikey() -> None:
    """Keys of service accounts.

    Every command reads the password of the schema's owner from a file.
    """


def _owner_options(command: _F) -> _F:
    for option in (
        database_ca_option,
        click.option(
            "--password-file",
            required=True,
            type=click.Path(path_type=Path),
            help="File with the owner's password (/dev/stdin works).",
        ),
        click.option(
            "--owner", default="mcp_owner", show_default=True, help="Role that owns the schema."
        ),
        config_option,
    ):
        command = option(command)
    return command


def _texts(
    _context: click.Context, parameter: click.Parameter, values: str | tuple[str, ...]
) -> str | tuple[str, ...]:
    for value in (values,) if isinstance(values, str) else values:
        if (
            not 0 < len(value) <= _MAX_TEXT_LENGTH
            or not value.isprintable()
            or any(each.isspace() or each == "," for each in value)
        ):
            raise click.BadParameter(
                f"{value!r} is not accepted; write 1 to {_MAX_TEXT_LENGTH} characters without spaces "
                "and commas",
                param=parameter,
            )
    return values


def _networks(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(
            f"{error}; write a CIDR block such as 10.20.0.0/16 or 2001:db8::/32", param=parameter
        ) from None


@apikey.command("create")
@click.argument("account", callback=_texts)
@click.option("--tenant", default="default", show_default=True, callback=_texts)
@click.option("--role", "roles", multiple=True, required=True, callback=_texts, help="Repeatable.")
@click.option("--scope", "scopes", multiple=True, callback=_texts, help="Repeatable.")
@click.option(
    "--network",
    "networks",
    multiple=True,
    callback=_networks,
    help="CIDR block from which the key is accepted; repeatable.  [default: everywhere]",
)
@click.option(
    "--days",
    type=click.IntRange(1, _MAX_DAYS),
    default=90,
    show_default=True,
    help="Days until the key expires.",
)
@click.option("--by", "created_by", callback=_texts, default=getpass.getuser, help="Who makes it.")
@_owner_options
@plain_errors
def create(
    *,
    account: str,
    tenant: str,
    roles: tuple[str, ...],
    scopes: tuple[str, ...],
    networks: tuple[IPv4Network | IPv6Network, ...],
    days: int,
    created_by: str,
    config: Path,
    owner: str,
    password_file: Path,
    database_ca: Path | None,
) -> None:
    """Make a key for ACCOUNT and print it. It cannot be shown again."""
    from mcp_server.identity.api_keys.store import KeyOptions, create_key  # noqa: PLC0415

    options = KeyOptions(
        account=account,
        tenant=tenant,
        roles=roles,
        scopes=scopes,
        networks=networks,
        expires_at=datetime.now(UTC) + timedelta(days=days),
        created_by=created_by,
    )
    key = _as_owner(
        config,
        owner,
        password_file,
        database_ca,
        lambda connection: create_key(connection, options),
    )
    click.echo(
        f"key {key.id} for {account}, valid for {days} day{'' if days == 1 else 's'}", err=True
    )
    click.echo(key.text)


@apikey.command("list")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_owner_options
@plain_errors
def list_(
    *, output: str, config: Path, owner: str, password_file: Path, database_ca: Path | None
) -> None:
    """List all keys without their secrets, and when each was last used."""
    from mcp_server.identity.api_keys.store import list_keys  # noqa: PLC0415

    rows = _as_owner(config, owner, password_file, database_ca, list_keys)
    if output == "json":
        click.echo(json.dumps([asdict(row) for row in rows], default=_iso, indent=2))
        return
    table: list[tuple[str, ...]] = [_HEADER, *(_line(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


@apikey.command("revoke")
@click.argument("key_id", metavar="ID")
@_owner_options
@plain_errors
def revoke(
    *, key_id: str, config: Path, owner: str, password_file: Path, database_ca: Path | None
) -> None:
    """Revoke the key with this ID. Every node refuses it within 5 seconds."""
    from mcp_server.identity.api_keys.store import revoke_key  # noqa: PLC0415

    if not _as_owner(
        config, owner, password_file, database_ca, lambda connection: revoke_key(connection, key_id)
    ):
        fail(f"there is no key {key_id}; `mcpctl apikey list` shows all")
    click.echo(f"revoked: {key_id}")


def _as_owner(
    config: Path,
    owner: str,
    password_file: Path,
    database_ca: Path | None,
    work: Callable[[asyncpg.Connection], Awaitable[_T]],
) -> _T:
    from mcp_server.infrastructure.database import DatabaseUnavailable  # noqa: PLC0415

    settings = database_settings(load_settings(config).database, database_ca)
    password = Secret(file=password_file).reveal()
    try:
        return asyncio.run(_over_connection(settings, owner, password, work))
    except DatabaseUnavailable as error:
        fail(error)


async def _over_connection(
    settings: DatabaseSettings,
    owner: str,
    password: str,
    work: Callable[[asyncpg.Connection], Awaitable[_T]],
) -> _T:
    from asyncpg.exceptions import InsufficientPrivilegeError, UndefinedTableError  # noqa: PLC0415

    from mcp_server.infrastructure.database import DatabaseUnavailable, connect  # noqa: PLC0415

    connection = await connect(settings, user=owner, password=password)
    try:
        return await work(connection)
    except UndefinedTableError:
        raise DatabaseUnavailable(
            "the database has no API keys yet; run `mcpctl db upgrade`"
        ) from None
    except InsufficientPrivilegeError as error:
        raise DatabaseUnavailable(f"the role {owner} may not do that: {error}") from None
    finally:
        await connection.close()


def _line(row: KeyRow) -> tuple[str, ...]:
    state = "valid"
    if row.revoked_at is not None:
        state = "revoked"
    elif row.expires_at <= datetime.now(UTC):
        state = "expired"
    return (
        row.id,
        row.account,
        row.tenant,
        ",".join(row.roles),
        ",".join(row.networks) or "all",
        state,
        f"{row.expires_at:%Y-%m-%d}",
        "never" if row.last_used_at is None else f"{row.last_used_at:%Y-%m-%d %H:%M}",
    )


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")
