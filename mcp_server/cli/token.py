"""`mcpctl token`: sign a token with the shared secret."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from mcp_server.cli.options import fail, plain_errors
from mcp_server.settings import MAX_LIFETIME_S

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


@click.command()
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
        SharedSecret,
        Verifier,
        mint_token,
    )
    from mcp_server.settings import JwtSettings, Secret  # noqa: PLC0415

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
