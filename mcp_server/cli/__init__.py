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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcpctl")
def main() -> None:
    """Run an MCP server node, or ask about one."""


for command in (serve, stdio, token, apikey, config, policy, docs, db, cmdb, probe):
    main.add_command(command)
