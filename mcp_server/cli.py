"""`mcpctl`: run a server node, and the operator's tools around it."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
import uuid
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import click
import yaml

from mcp_server import __version__
from mcp_server.settings import (
    MAX_LIFETIME_S,
    DatabaseSettings,
    Settings,
    SettingsError,
    load_settings,
)

if TYPE_CHECKING:
    from mcp_server.tools.cmdb.importer import NetBoxRules

__all__ = ["main"]

# One statement of an import writes up to 100,000 rows.
_IMPORT_TIMEOUT_S = 120.0

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _fail(message: object) -> NoReturn:
    """End with status 1 and the message on standard error, without a stack trace."""
    raise click.ClickException(str(message))


def _plain_errors(command: Callable[_P, _T]) -> Callable[_P, _T]:
    @wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return command(*args, **kwargs)
        except SettingsError as error:
            _fail(error)

    return wrapped


def _role_names(
    _context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    for name in names:
        if not name.isprintable() or not name or any(c.isspace() or c == "," for c in name):
            raise click.BadParameter(
                f"{name!r} is no name of a role; accepted are names without spaces and commas, "
                "such as mcp:viewer"
            )
    return names


_config_option = click.option(
    "--config",
    "config",
    envvar="MCP_CONFIG_PATH",
    type=click.Path(path_type=Path),
    default=Path("/etc/mcp_server/config.yaml"),
    show_default=True,
    show_envvar=True,
    help="Configuration file (YAML).",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcpctl")
def main() -> None:
    """Run an MCP server node, or ask about one."""


@main.command()
@_config_option
@_plain_errors
def serve(config: Path) -> None:
    """Serve MCP and REST behind the load balancer until SIGTERM."""
    # The servers' libraries load here and not with the module, so that `mcpctl token` stays quick.
    from mcp_server.app import serve as serve_node  # noqa: PLC0415
    from mcp_server.telemetry import configure_logs  # noqa: PLC0415

    settings = load_settings(config)
    configure_logs(settings.log.level)
    asyncio.run(serve_node(settings))


@main.command()
@_config_option
@click.option(
    "--token-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the bearer token of the user on whose behalf calls are made.",
)
@_plain_errors
def stdio(config: Path, token_file: Path) -> None:
    """Serve MCP on standard input and output for one user."""
    from mcp_server.app import serve_stdio  # noqa: PLC0415
    from mcp_server.identity import AuthenticationError, JwtVerifier  # noqa: PLC0415
    from mcp_server.telemetry import configure_logs  # noqa: PLC0415

    settings = load_settings(config)
    configure_logs(settings.log.level)
    try:
        token = token_file.read_text(encoding="utf-8").strip()
        subject = JwtVerifier(settings.identity.jwt).verify(token)
    except (AuthenticationError, OSError, UnicodeDecodeError) as error:
        _fail(f"the token in {token_file} is not usable: {error}")
    asyncio.run(serve_stdio(settings, subject))


@main.command()
@click.option("--user", required=True, help="Subject of the token.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    callback=_role_names,
    help="A role, such as mcp:viewer; repeatable.",
)
@click.option("--tenant", default="default", show_default=True)
@click.option("--issuer", required=True, help="The value of identity.jwt.issuer.")
@click.option("--audience", required=True, help="The value of identity.jwt.audience.")
@click.option(
    "--secret-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the shared secret.",
)
@click.option(
    "--ttl",
    type=click.IntRange(1, MAX_LIFETIME_S),
    default=3600,
    show_default=True,
    help="Lifetime in seconds.",
)
@click.option(
    "--max-lifetime",
    "max_lifetime_s",
    type=click.IntRange(60, MAX_LIFETIME_S),
    default=3600,
    show_default=True,
    help="The value of identity.jwt.max_lifetime_s.",
)
@_plain_errors
def token(
    *,
    user: str,
    roles: tuple[str, ...],
    tenant: str,
    issuer: str,
    audience: str,
    secret_file: Path,
    ttl: int,
    max_lifetime_s: int,
) -> None:
    """Print a signed token, and nothing else; one that a server would refuse is an error."""
    from mcp_server.identity import (  # noqa: PLC0415
        AuthenticationError,
        JwtVerifier,
        mint_token,
    )
    from mcp_server.settings import JwtSettings, Secret  # noqa: PLC0415

    if ttl > max_lifetime_s:
        _fail(
            f"--ttl {ttl} is longer than the {max_lifetime_s} seconds that a server accepts "
            "(identity.jwt.max_lifetime_s); ask for less, or give the server's value as --max-lifetime"
        )
    source = Secret(file=secret_file)
    secret = source.reveal()
    settings = JwtSettings(
        secret=source, issuer=issuer, audience=audience, max_lifetime_s=max_lifetime_s
    )
    # Refuses a short secret before anything is signed with it.
    verifier = JwtVerifier(settings, secret)
    minted = mint_token(
        secret=secret,
        issuer=issuer,
        audience=audience,
        user=user,
        roles=roles,
        tenant=tenant,
        ttl_s=ttl,
    )
    try:
        verifier.verify(minted)
    except AuthenticationError as error:
        _fail(error)
    click.echo(minted)


@main.group()
def config() -> None:
    """Look at the configuration."""


@config.command("check")
@_config_option
@_plain_errors
def config_check(config: Path) -> None:
    """Check the configuration file; secrets are not read."""
    settings = load_settings(config)
    click.echo(f"{config}: valid configuration of node {settings.node}")


@main.group()
def policy() -> None:
    """What the policies need to know of the server."""


@policy.command("catalog")
def policy_catalog() -> None:
    """Print the policy's catalogue of tools and resources (YAML), generated from the declarations."""
    from mcp_server.generate.policy_catalog import policy_catalog  # noqa: PLC0415

    click.echo("# yaml-language-server: $schema=../../schemas/catalog/schema.json")
    click.echo(
        "# Generated by `mcpctl policy catalog` from the declarations of the tools. Do not edit."
    )
    click.echo(yaml.safe_dump(policy_catalog(), sort_keys=True), nl=False)


@main.group()
def docs() -> None:
    """Documents that are generated from the declarations."""


@docs.command("tools")
def docs_tools() -> None:
    """Print docs/tools.md: every tool, resource, template and prompt this version can serve."""
    from mcp_server.generate.tools_reference import tools_reference  # noqa: PLC0415

    click.echo(tools_reference(), nl=False)


_database_ca_option = click.option(
    "--database-ca",
    type=click.Path(path_type=Path),
    help="CA of the database's certificate (PEM).  [default: database.ca of the configuration]",
)


@main.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
@_config_option
@click.option("--owner", default="mcp_owner", show_default=True, help="Role that owns the schema.")
@_database_ca_option
@_plain_errors
def db_upgrade(config: Path, owner: str, database_ca: Path | None) -> None:
    """Apply missing migrations. The owner's password is read from standard input."""
    from mcp_server.database import DatabaseUnavailable  # noqa: PLC0415
    from mcp_server.database.migrate import MigrationFailed, upgrade  # noqa: PLC0415

    database = _database(load_settings(config).database, database_ca)
    password = sys.stdin.readline().rstrip("\r\n")
    try:
        applied = asyncio.run(upgrade(database, user=owner, password=password))
    except (MigrationFailed, DatabaseUnavailable) as error:
        _fail(error)
    click.echo(f"applied: {', '.join(applied)}" if applied else "up to date")


def _database(settings: DatabaseSettings, ca: Path | None) -> DatabaseSettings:
    return settings if ca is None else settings.model_copy(update={"ca": ca})


@main.group()
def cmdb() -> None:
    """The embedded CMDB."""


@cmdb.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@_config_option
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
@_database_ca_option
@click.option("--dry-run", is_flag=True, help="Say what would change, change nothing.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_plain_errors
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

    from mcp_server.database import DatabaseUnavailable, connect  # noqa: PLC0415
    from mcp_server.tools.cmdb.importer import (  # noqa: PLC0415
        Format,
        ImportReport,
        ImportUnknown,
        InvalidImport,
        Source,
        read_sources,
        report_text,
        write_import,
    )

    if file == "-" and password_file in (Path("/dev/stdin"), Path("-")):
        _fail("standard input cannot be FILE and the password at once; use a file for one of them")
    database = _database(load_settings(config).database, database_ca)
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
        _fail(f"cannot read {password_file}: {error}")
    try:
        report = asyncio.run(run())
    except InvalidImport as error:
        count = len(error.faults)
        _fail(f"nothing was imported: {count} fault{'s' * (count > 1)}\n{error}")
    except (DatabaseUnavailable, ImportUnknown) as error:
        _fail(error)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _fail(f"nothing was imported: the database ended it: {str(error) or type(error).__name__}")
    click.echo(report.model_dump_json(indent=2) if output == "json" else report_text(report))


def _netbox_rules(environment: str | None, roles: tuple[str, ...]) -> NetBoxRules:
    from mcp_server.tools.cmdb.importer import NetBoxRules  # noqa: PLC0415
    from mcp_server.tools.cmdb.model import AssetType, Environment  # noqa: PLC0415

    types: dict[str, AssetType] = {}
    for text in roles:
        slug, _, kind = text.partition("=")
        if not slug or kind not in list(AssetType):
            _fail(f"--netbox-role {text!r} must be SLUG=TYPE with one of {', '.join(AssetType)}")
        types[slug] = AssetType(kind)
    return NetBoxRules(
        environment=None if environment is None else Environment(environment), role_types=types
    )


@main.command()
@_config_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds for one answer.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Ask again until the answer is good, for so long.  [default: ask once]",
)
@click.option("--revision", help="Good only when the node decides by this policy revision.")
@_plain_errors
def probe(*, config: Path, timeout: float, wait_s: float, revision: str | None) -> None:
    """Ask the running node of this host how it is; print JSON; status 0 when it is ready."""
    from mcp_server.health.probe import ProbeFailed, shortcoming, wait_until_good  # noqa: PLC0415

    settings = load_settings(config)
    try:
        answer = asyncio.run(
            wait_until_good(settings.telemetry, wait_s=wait_s, timeout_s=timeout, revision=revision)
        )
        fault = shortcoming(answer, revision)
    except ProbeFailed as error:
        fault = f"none, {error}"
        answer = {"ready": False, "error": str(error)}
    click.echo(json.dumps(answer, sort_keys=True))
    if fault is not None:
        waited = f" after {wait_s:g} s" if wait_s else ""
        _fail(f"not ready{waited}. Last answer: {fault}")


@config.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    click.echo(json.dumps(Settings.model_json_schema(), indent=2))
