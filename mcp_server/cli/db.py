"""`mcpctl db`: the schema of the database."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from mcp_server.cli.options import (
    config_option,
    database_ca_option,
    database_settings,
    fail,
    plain_errors,
)
from mcp_server.settings import Secret, load_settings

__all__ = ["db"]


@click.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
@config_option
@click.option("--owner", default="mcp_owner", show_default=True, help="Role that owns the schema.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="File with the owner's password.  [default: standard input]",
)
@database_ca_option
@plain_errors
def db_upgrade(
    config: Path, owner: str, password_file: Path | None, database_ca: Path | None
) -> None:
    """Apply missing migrations."""
    from mcp_server.infrastructure.database import DatabaseUnavailable  # noqa: PLC0415
    from mcp_server.infrastructure.database.migrate import MigrationFailed, upgrade  # noqa: PLC0415

    database = database_settings(load_settings(config).database, database_ca)
    if password_file is not None:
        password = Secret(file=password_file).reveal()
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        applied = asyncio.run(upgrade(database, user=owner, password=password))
    except (MigrationFailed, DatabaseUnavailable) as error:
        fail(error)
    click.echo(f"applied: {', '.join(applied)}" if applied else "up to date")
