"""`mcpctl`: run a server node, and the operator's commands around it; one module for each group.

Libraries that a command alone needs are imported in the command, so that `mcpctl token` stays quick.
"""

from __future__ import annotations

import click

from mcp_server import __version__
from mcp_server.cli.apikey import apikey
from mcp_server.cli.cmdb import cmdb
from mcp_server.cli.config import config
from mcp_server.cli.db import db
from mcp_server.cli.generated import docs, policy
from mcp_server.cli.probe import probe
from mcp_server.cli.serve import serve, stdio
from mcp_server.cli.token import token

__all__ = ["main"]


class _Commands(click.Group):
    """The commands; `audit` needs the libraries of the audit log and is loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "audit"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "audit":
            from mcp_server.cli.audit import audit  # noqa: PLC0415

            return audit
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcpctl")
def main() -> None:
    """Run an MCP server node, or ask about one."""


for command in (serve, stdio, token, apikey, config, policy, docs, db, cmdb, probe):
    main.add_command(command)
