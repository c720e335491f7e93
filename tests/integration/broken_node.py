"""A server node with a tool, documents and a prompt that fail as nobody foresaw.

Everything else is the product. What raises stands for a fault of ours that no test knows yet, and says
what may not reach a client.

Usage: python -m tests.integration.broken_node CONFIG
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from mcp_server.app import Node, serve
from mcp_server.cli.generate.policy_catalog import catalog_of
from mcp_server.gate.resource_reads import Resources
from mcp_server.infrastructure.telemetry import configure_logs
from mcp_server.prompts import Prompt, PromptArguments, Prompts, Step
from mcp_server.settings import Settings, load_settings
from mcp_server.tools.catalog import Arguments, Catalog, Result, Tool, ToolContext
from mcp_server.tools.resources import Resource
from tests.integration.nodes import McpNode

__all__ = ["DETAIL", "BrokenMcpNode", "catalogue"]

DETAIL = "detail of a backend"


class Nothing(Arguments):
    """No arguments."""


class Said(Result):
    """A text."""

    text: str


async def _crash(_arguments: Nothing, _context: ToolContext) -> Said:
    raise KeyError(DETAIL)


async def _read(_context: ToolContext, _parameters: Mapping[str, str]) -> str:
    raise KeyError(DETAIL)


async def _complete(
    _parameter: str, _text: str, _given: Mapping[str, str], _context: ToolContext
) -> list[str]:
    raise KeyError(DETAIL)


def _tool(name: str, *, read_only: bool) -> Tool[Nothing, Said]:
    return Tool(
        name=f"test:{name}",
        # Only REST tells it, and cannot.
        title=cast(str, object()),
        description="Fails.",
        permission="tools:read",
        arguments=Nothing,
        result=Said,
        run=_crash,
        render=lambda result: str(result["text"]),
        read_only=read_only,
        verify_hint="look at it",
        source="the test",
    )


TOOLS = [_tool("crash", read_only=True), _tool("crash_changing", read_only=False)]
DOCUMENTS = [
    Resource(
        uri="test://crash/{id}",
        name="crash",
        title="crash",
        description="Fails.",
        permission="tools:read",
        read=_read,
        complete=_complete,
        source="the test",
    )
]


class _Broken(Prompt):
    def render(self, *_: Any) -> NoReturn:
        raise KeyError(DETAIL)


PROMPTS = [
    _Broken(
        name="crash",
        title="crash",
        description="Fails.",
        permission="tools:read",
        arguments=PromptArguments,
        task="Fail.",
        steps=(Step("test:crash", "fail.", required=True),),
        result="Nothing.",
    )
]


def catalogue() -> dict[str, Any]:
    """Return what the policy's catalogue must hold besides, so that OPA can allow these."""
    return catalog_of(TOOLS, DOCUMENTS, PROMPTS)


class _BrokenPrompts(Prompts):
    def __iter__(self) -> NoReturn:
        raise KeyError(DETAIL)


class BrokenNode(Node):
    """The product's node with what fails beside its own tools, and lists that fail."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.gate.catalog = Catalog([*self.gate.catalog, *TOOLS])
        self.resources = Resources([*self.resources, *DOCUMENTS])
        self.prompts = _BrokenPrompts([*self.prompts, *PROMPTS], self.gate.catalog)


class BrokenMcpNode(McpNode):
    """This node as a process."""

    def command(self) -> list[str]:
        here = f"PYTHONPATH={Path(__file__).resolve().parents[2]}"
        program = [sys.executable, "-m", "tests.integration.broken_node"]
        return ["env", here, *program, str(self.config)]


if __name__ == "__main__":
    loaded = load_settings(Path(sys.argv[1]))
    configure_logs(loaded.log.level)
    asyncio.run(serve(loaded, BrokenNode))
