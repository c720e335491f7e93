"""`mcpctl token`: sign tokens with the shared secret, and revoke tokens of any issuer."""

from __future__ import annotations

import asyncio
import difflib
import getpass
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from mcp_server.cli.options import (
    config_option,
    database_ca_option,
    database_settings,
    fail,
    plain_errors,
)
from mcp_server.settings import (
    MAX_LIFETIME_S,
    DatabaseSettings,
    IdentitySettings,
    Secret,
    load_settings,
)

__all__ = ["token"]


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


class _IssuesByDefault(click.Group):
    """A group in which options without the name of a command belong to `issue`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *self.get_help_option_names(ctx)}:
            args = ["issue", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_IssuesByDefault)
def token() -> None:
    """Sign a token with the shared secret (`issue`, also without this word), or revoke tokens."""


@token.command()
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
@plain_errors
def issue(
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
        SharedSecret,
        Verifier,
        mint_token,
    )
    from mcp_server.settings import JwtSettings  # noqa: PLC0415

    if ttl > max_lifetime_s:
        fail(
            f"--ttl {ttl} is longer than the {max_lifetime_s} seconds that a server accepts "
            "(identity.jwt.max_lifetime_s); ask for less, or give the server's value as --max-lifetime"
        )
    source = Secret(file=secret_file)
    secret = source.reveal()
    settings = JwtSettings(
        secret=source, issuer=issuer, audience=audience, max_lifetime_s=max_lifetime_s
    )
    # Raises for a short secret before anything is signed with it.
    verifier = Verifier([SharedSecret(settings, secret)])
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
        asyncio.run(verifier.verify(minted))
    except AuthenticationError as error:
        fail(error)
    click.echo(minted)


# After this time no token that was valid at its revocation is accepted anyway: the longest lifetime and
# the largest leeway.
_REVOKED_S = MAX_LIFETIME_S + 300
_REVOKE = """
    INSERT INTO identity.revocations (issuer, user_id, token_id, expires_at, revoked_by, reason)
    VALUES ($1, $2, $3, now() + make_interval(secs => $4), $5, $6)
"""
_LIST = """
    SELECT issuer, user_id, token_id, revoked_at, expires_at, revoked_by, reason
    FROM identity.revocations WHERE expires_at > now() ORDER BY revoked_at, id
"""


def _database_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        config_option,
        click.option(
            "--owner", default="mcp_owner", show_default=True, help="Role that owns the schema."
        ),
        click.option(
            "--password-file",
            required=True,
            type=click.Path(path_type=Path),
            help="File with the owner's password (/dev/stdin works).",
        ),
        database_ca_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@token.command()
@click.option("--issuer", help="Configured name of the issuer, such as shared-secret.")
@click.option("--user", help="Subject of the tokens: all that were issued until now.")
@click.option("--token-id", help="Id of one token (jti; the audit log has it).")
@click.option("--reason", required=True, help="Why, for the list.")
@_database_options
@plain_errors
def revoke(
    *,
    issuer: str | None,
    user: str | None,
    token_id: str | None,
    reason: str,
    config: Path,
    owner: str,
    password_file: Path,
    database_ca: Path | None,
) -> None:
    """Revoke tokens: all that match every given option. Every node refuses them within 5 seconds.

    A user who signs in again gets a token that is accepted; a revoked issuer's later tokens are as well.
    Disable the user or the issuer first.
    """
    if not (issuer or user or token_id):
        fail("name what is revoked: --issuer, --user, --token-id, or several of them")
    settings = load_settings(config)
    if issuer:
        _require_accepted(issuer, settings.identity)
    values = (issuer or None, user or None, token_id or None, _REVOKED_S)
    _run(
        lambda connection: connection.execute(_REVOKE, *values, getpass.getuser(), reason),
        *(database_settings(settings.database, database_ca), owner, password_file),
    )
    click.echo("revoked")


def _require_accepted(issuer: str, settings: IdentitySettings) -> None:
    """Refuse an issuer that no accepted token has: its revocation would match nothing."""
    accepted = settings.issuer_names
    if issuer in accepted:
        return
    near = difflib.get_close_matches(issuer, accepted, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    fail(
        f"nothing was revoked: {issuer!r} is no issuer of this configuration, so none of its tokens is "
        f"accepted; {hint}accepted are {', '.join(accepted)}"
    )


@token.command()
@_database_options
@plain_errors
def revocations(*, config: Path, owner: str, password_file: Path, database_ca: Path | None) -> None:
    """List the revocations in force as JSON, one on a line."""
    database = database_settings(load_settings(config).database, database_ca)
    rows = _run(lambda connection: connection.fetch(_LIST), database, owner, password_file)
    for row in rows:
        click.echo(json.dumps(dict(row), default=lambda time: time.isoformat()))


def _run(
    query: Callable[[Any], Awaitable[Any]],
    database: DatabaseSettings,
    owner: str,
    password_file: Path,
) -> Any:
    import asyncpg  # noqa: PLC0415

    from mcp_server.infrastructure.database import DatabaseUnavailable, connect  # noqa: PLC0415

    password = Secret(file=password_file).reveal()

    async def run() -> Any:
        connection = await connect(database, user=owner, password=password)
        try:
            return await query(connection)
        finally:
            await connection.close()

    try:
        return asyncio.run(run())
    except (DatabaseUnavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        fail(f"the database refused it: {str(error) or type(error).__name__}")
