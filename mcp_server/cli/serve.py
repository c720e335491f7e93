"""`mcpctl serve` and `mcpctl stdio`: run a node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from mcp_server.cli.options import config_option, fail, plain_errors
from mcp_server.settings import load_settings

__all__ = ["serve", "stdio"]


@click.command()
@config_option
@click.option(
    "--node",
    envvar="MCP_NODE",
    show_envvar=True,
    help="Name of this node, such as the pod's.  [default: node of the configuration]",
)
@plain_errors
def serve(config: Path, node: str | None) -> None:
    """Serve MCP and REST behind the load balancer until SIGTERM."""
    # The servers' libraries load here and not with the module, so that `mcpctl token` stays quick.
    from mcp_server.app import serve as serve_node  # noqa: PLC0415
    from mcp_server.infrastructure.telemetry import configure_logs  # noqa: PLC0415

    settings = load_settings(config)
    if node:
        settings = settings.model_copy(update={"node": node})
    configure_logs(settings.log.level)
    asyncio.run(serve_node(settings))


@click.command()
@config_option
@click.option(
    "--token-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the bearer token of the user on whose behalf calls are made.",
)
@plain_errors
def stdio(config: Path, token_file: Path) -> None:
    """Serve MCP on standard input and output for one user."""
    from mcp_server.app import serve_stdio  # noqa: PLC0415
    from mcp_server.identity import AuthenticationError, IdentityUnavailable  # noqa: PLC0415
    from mcp_server.infrastructure.telemetry import configure_logs  # noqa: PLC0415

    settings = load_settings(config)
    configure_logs(settings.log.level)
    try:
        token = token_file.read_text(encoding="utf-8").strip()
        asyncio.run(serve_stdio(settings, token))
    except (AuthenticationError, IdentityUnavailable, OSError, UnicodeDecodeError) as error:
        fail(f"the token in {token_file} is not usable: {error}")
