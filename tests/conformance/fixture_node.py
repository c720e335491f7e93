"""A server node with the tools, resources and prompts that the conformance suite asks for.

Everything but these fixtures is the product: HTTP guard, JWT, gate, OPA, Redis, PostgreSQL and the
transports. Where the product has a way to declare a thing (text, structured results, templates, prompts
of text), the fixtures are declared that way. Content that no tool of the product returns (images,
audio, embedded resources) is added by a transport of the tests, after the same gate.

Usage: python -m tests.conformance.fixture_node CONFIG
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.subscriptions import PromptsListChanged, ToolsListChanged
from pydantic import Field

from mcp_server.app import Node, serve
from mcp_server.cli.generate.policy_catalog import catalog_of
from mcp_server.gate import Caller, Progress
from mcp_server.gate.resource_reads import Resources
from mcp_server.infrastructure.telemetry import configure_logs
from mcp_server.prompts import Prompt, PromptArguments, Prompts, Step
from mcp_server.settings import Settings, load_settings
from mcp_server.tools.catalog import Arguments, Catalog, Result, Tool, ToolContext, ToolError
from mcp_server.tools.resources import Resource
from mcp_server.transports.mcp import McpTransport

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="


class NoArguments(Arguments):
    """A fixture takes none."""


class Said(Result):
    """What a fixture says."""

    text: str


Run = Callable[[NoArguments, ToolContext], Awaitable[Said]]


def _tool(name: str, run: Run) -> Tool[NoArguments, Said]:
    return Tool(
        name=f"test:{name}",
        title=name,
        description=f"Fixture {name} of the conformance suite.",
        permission="tools:read",
        arguments=NoArguments,
        result=Said,
        run=run,
        render=lambda result: str(result["text"]),
        read_only=True,
        source="the fixtures",
    )


async def _say(_arguments: NoArguments, _context: ToolContext) -> Said:
    return Said(text="This is a simple text response for testing.")


async def _fail(_arguments: NoArguments, _context: ToolContext) -> Said:
    raise ToolError("This tool intentionally returns an error for testing")


async def _report(_arguments: NoArguments, context: ToolContext) -> Said:
    for done in (0, 50, 100):
        await context.progress(done, 100, f"step {done} of 100")
        await asyncio.sleep(0.05)
    return Said(text="done")


def _image() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mime_type="image/png")


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource",
        resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=text),
    )


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


CONTENTS: dict[str, list[types.ContentBlock]] = {
    "image_content": [_image()],
    "audio_content": [types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")],
    "embedded_resource": [
        _embedded("test://embedded-resource", "This is an embedded resource content.")
    ],
    "multiple_content_types": [
        _text("Multiple content types test:"),
        _image(),
        _embedded("test://mixed-content-resource", '{"test": "data"}', "application/json"),
    ],
}

TOOLS = [
    _tool("simple_text", _say),
    _tool("error_handling", _fail),
    _tool("tool_with_progress", _report),
    _tool("trigger_tool_change", _say),
    _tool("trigger_prompt_change", _say),
    *(_tool(name, _say) for name in CONTENTS),
]


async def _read_text(_context: ToolContext, _parameters: Mapping[str, str]) -> str:
    return json.dumps("This is the content of the static text resource.")


async def _read_template(_context: ToolContext, parameters: Mapping[str, str]) -> str:
    return json.dumps({"id": parameters["id"], "templateTest": True})


async def _complete(
    _parameter: str, text: str, _given: Mapping[str, str], _context: ToolContext
) -> list[str]:
    return [f"{text}{number}" for number in range(101)]


def _document(
    uri: str, read: Callable[..., Awaitable[str]], mime_type: str, **more: Any
) -> Resource:
    return Resource(
        uri=uri,
        name=uri.partition("://")[2].replace("/", "-"),
        title=uri,
        description="A fixture of the conformance suite.",
        permission="tools:read",
        read=read,
        source="the fixtures",
        mime_type=mime_type,
        **more,
    )


BINARY = "test://static-binary"
DOCUMENTS = [
    _document("test://static-text", _read_text, "text/plain"),
    _document(BINARY, _read_text, "image/png"),
    _document("test://template/{id}/data", _read_template, "application/json", complete=_complete),
]


class TwoArguments(PromptArguments):
    """Arguments of `test_prompt_with_arguments`."""

    arg1: str = Field(description="First test argument")
    arg2: str = Field(description="Second test argument")


class ResourceArguments(PromptArguments):
    """Arguments of `test_prompt_with_embedded_resource`."""

    resourceUri: str = Field(description="URI of the resource to embed")  # noqa: N815 - the suite's


def _prompt(name: str, arguments: type[PromptArguments] = PromptArguments) -> Prompt:
    return Prompt(
        name=name,
        title=name,
        description="A fixture of the conformance suite.",
        permission="tools:read",
        arguments=arguments,
        task="This is a simple prompt for testing.",
        steps=(Step("test:simple_text", "say something.", required=True),),
        result="Answer with what it said.",
    )


PROMPTS = [
    _prompt("test_simple_prompt"),
    _prompt("test_prompt_with_arguments", TwoArguments),
    _prompt("test_prompt_with_embedded_resource", ResourceArguments),
    _prompt("test_prompt_with_image"),
]


def catalogue() -> dict[str, Any]:
    """Return what the policy's catalogue must hold besides, so that OPA can allow the fixtures."""
    return catalog_of(TOOLS, DOCUMENTS, PROMPTS)


class FixtureTransport(McpTransport):
    """The product's transport; contents that no tool of the product has are put in here."""

    async def call_tool(
        self,
        caller: Caller,
        params: types.CallToolRequestParams,
        *,
        progress: Progress | None = None,
    ) -> types.CallToolResult:
        answer = await super().call_tool(caller, params, progress=progress)
        name = params.name.removeprefix("test_")
        if not answer.is_error:
            if name == "trigger_tool_change":
                await self.changes.publish(ToolsListChanged())
            if name == "trigger_prompt_change":
                await self.changes.publish(PromptsListChanged())
            if name in CONTENTS:
                return types.CallToolResult(
                    content=CONTENTS[name], structured_content=answer.structured_content
                )
        return answer

    async def _read_resource(
        self, ctx: Any, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        answer = await super()._read_resource(ctx, params)
        if str(params.uri) == BINARY:
            blob = types.BlobResourceContents(uri=BINARY, mime_type="image/png", blob=PNG)
            return answer.model_copy(update={"contents": [blob]})
        return answer

    async def _get_prompt(
        self, ctx: Any, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        answer = await super()._get_prompt(ctx, params)
        contents: dict[str, types.ContentBlock] = {
            "test_prompt_with_image": _image(),
            "test_prompt_with_embedded_resource": _embedded(
                (params.arguments or {}).get("resourceUri", ""), "Embedded resource content."
            ),
        }
        if params.name in contents:
            message = types.PromptMessage(role="user", content=contents[params.name])
            return answer.model_copy(update={"messages": [message, *answer.messages]})
        return answer


class FixtureNode(Node):
    """The product's node with the fixtures beside its own tools."""

    _transport_class = FixtureTransport

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.gate.catalog = Catalog([*self.gate.catalog, *TOOLS])
        self.resources = Resources([*self.resources, *DOCUMENTS])
        self.prompts = Prompts([*self.prompts, *PROMPTS], self.gate.catalog)


if __name__ == "__main__":
    loaded = load_settings(Path(sys.argv[1]))
    configure_logs(loaded.log.level)
    asyncio.run(serve(loaded, FixtureNode))
