"""`mcpctl cmdb`: the embedded CMDB."""

from __future__ import annotations

import asyncio
import getpass
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcp_server.cli.options import (
    config_option,
    database_ca_option,
    database_settings,
    fail,
    plain_errors,
)
from mcp_server.settings import load_settings

if TYPE_CHECKING:
    from mcp_server.cli.cmdb_import import NetBoxRules

__all__ = ["cmdb"]

# One statement of an import writes up to 100,000 rows.
_IMPORT_TIMEOUT_S = 120.0


@click.group()
def cmdb() -> None:
    """The embedded CMDB."""


@cmdb.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@config_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "json", "netbox"]),
    help="Format of FILE.  [default: by its name, .csv or .json]",
)
@click.option(
    "--relations",
    type=click.Path(dir_okay=False),
    help="File with relations (from, to, type), .csv or .json.",
)
@click.option(
    "--tenant",
    help="Whose all records are.  [default: what each record says, or else default]",
)
@click.option(
    "--netbox-environment",
    type=click.Choice(["prod", "staging", "dev"]),
    help="Environment of NetBox records that name none.",
)
@click.option(
    "--netbox-role",
    "netbox_roles",
    metavar="SLUG=TYPE",
    multiple=True,
    help="Type of the assets with this role in NetBox; repeatable.",
)
@click.option("--user", help="Who imports.  [default: import:LOGIN]")
@click.option("--reason", help="Why.  [default: import of FILE]")
@click.option("--owner", default="mcp_owner", show_default=True, help="Role that owns the schema.")
@click.option(
    "--password-file",
    required=True,
    type=click.Path(path_type=Path),
    help="File with the owner's password (/dev/stdin works).",
)
@database_ca_option
@click.option("--dry-run", is_flag=True, help="Say what would change, change nothing.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@plain_errors
def cmdb_import(
    *,
    file: str,
    config: Path,
    file_format: str | None,
    relations: str | None,
    tenant: str | None,
    netbox_environment: str | None,
    netbox_roles: tuple[str, ...],
    user: str | None,
    reason: str | None,
    owner: str,
    password_file: Path,
    database_ca: Path | None,
    dry_run: bool,
    output: str,
) -> None:
    """Create and update assets, and add relations, from FILE (- is standard input).

    All or nothing, as often as you like: what is the same already is left alone. Nothing is removed.
    """
    import asyncpg  # noqa: PLC0415

    from mcp_server.cli.cmdb_import import (  # noqa: PLC0415
        Format,
        ImportReport,
        ImportUnknown,
        InvalidImport,
        Source,
        read_sources,
        report_text,
        write_import,
    )
    from mcp_server.infrastructure.database import DatabaseUnavailable, connect  # noqa: PLC0415

    if file == "-" and password_file in (Path("/dev/stdin"), Path("-")):
        fail("standard input cannot be FILE and the password at once; use a file for one of them")
    database = database_settings(load_settings(config).database, database_ca)
    sources = [Source(file, None if file_format is None else Format(file_format))]
    if relations is not None:
        sources.append(Source(relations, relations=True))

    async def run() -> ImportReport:
        content = read_sources(
            sources, tenant=tenant, netbox=_netbox_rules(netbox_environment, netbox_roles)
        )
        connection = await connect(
            database, user=owner, password=password, statement_timeout_s=_IMPORT_TIMEOUT_S
        )
        try:
            return await write_import(
                connection,
                content,
                user=user or f"import:{getpass.getuser()}",
                reason=reason or f"import of {'standard input' if file == '-' else file}",
                request_id=f"import-{uuid.uuid4().hex}",
                dry_run=dry_run,
            )
        finally:
            await connection.close()

    try:
        password = password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read {password_file}: {error}")
    try:
        report = asyncio.run(run())
    except InvalidImport as error:
        count = len(error.faults)
        fail(f"nothing was imported: {count} fault{'s' * (count > 1)}\n{error}")
    except (DatabaseUnavailable, ImportUnknown) as error:
        fail(error)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        fail(f"nothing was imported: the database ended it: {str(error) or type(error).__name__}")
    click.echo(report.model_dump_json(indent=2) if output == "json" else report_text(report))


def _netbox_rules(environment: str | None, roles: tuple[str, ...]) -> NetBoxRules:
    from mcp_server.cli.cmdb_import import NetBoxRules  # noqa: PLC0415
    from mcp_server.tools.cmdb.model import AssetType, Environment  # noqa: PLC0415

    types: dict[str, AssetType] = {}
    for text in roles:
        slug, _, kind = text.partition("=")
        if not slug or kind not in list(AssetType):
            fail(f"--netbox-role {text!r} must be SLUG=TYPE with one of {', '.join(AssetType)}")
        types[slug] = AssetType(kind)
    return NetBoxRules(
        environment=None if environment is None else Environment(environment), role_types=types
    )
