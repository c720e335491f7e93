"""Servers with one tool that does nothing, so that what is measured is the way to the tool.

`governed CONFIG` is the product with the tool mounted beside its own; `bare PORT` is the SDK alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvicorn
from mcp.server import MCPServer

from mcp_server import app
from mcp_server.infrastructure.telemetry import configure_logs
from mcp_server.settings import Settings, load_settings
from mcp_server.tools.catalog import Arguments, Catalog, Result, Tool, ToolContext

__all__ = ["ECHO", "EchoNode"]


class EchoArguments(Arguments):
    """Arguments of the tool that does nothing."""

    text: str


class EchoResult(Result):
    """What was said."""

    text: str


async def _echo(arguments: EchoArguments, _: ToolContext) -> EchoResult:
    return EchoResult(text=arguments.text)


ECHO = Tool(
    name="bench:echo",
    title="Echo",
    description="Return the text.",
    permission="tools:read",
    arguments=EchoArguments,
    result=EchoResult,
    run=_echo,
    render=json.dumps,
    read_only=True,
    source="a test",
)


class EchoNode(app.Node):
    """A node with `bench:echo` beside the product's tools."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.gate.catalog = Catalog([*self.gate.catalog, ECHO])


def main() -> None:
    """Serve until SIGTERM."""
    kind, argument = sys.argv[1:3]
    if kind == "governed":
        settings = load_settings(Path(argument))
        configure_logs(settings.log.level)
        asyncio.run(app.serve(settings, EchoNode))
        return
    server = MCPServer("bare", log_level="ERROR")

    @server.tool(name="bench_echo")
    async def echo(text: str) -> EchoResult:
        """Return the text."""
        return EchoResult(text=text)

    uvicorn.run(
        server.streamable_http_app(json_response=True, stateless_http=True),
        host="127.0.0.1",
        port=int(argument),
        loop="asyncio",
        http="httptools",
        log_level="error",
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
