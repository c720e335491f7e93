"""The MCP transport: protocol versions 2024-11-05 to 2026-07-28 over Streamable HTTP, and stdio."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import mcp_types as types
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp_types.methods import SPEC_CLIENT_METHODS
from pydantic import ValidationError

from mcp_server import __version__
from mcp_server.gate import (
    Call,
    Caller,
    Failed,
    Gate,
    InternalError,
    Progress,
    Refused,
    call_tool,
)
from mcp_server.gate.resource_reads import Resources
from mcp_server.policy import Obligations, Visible
from mcp_server.policy import Resource as PolicyResource
from mcp_server.prompts import Prompts
from mcp_server.tools.catalog import InvalidArguments
from mcp_server.tools.resources import Resource
from mcp_server.transports.declarations import (
    instructions,
    prompt_declaration,
    resource_declaration,
    template_declaration,
    tool_declaration,
)
from mcp_server.transports.errors import (
    DRAINING,
    error_data,
)
from mcp_server.transports.list_pages import InvalidCursor, page
from mcp_server.transports.mcp_errors import failure_error, refusal_error, tool_error, untrusted

__all__ = ["McpTransport"]

_LIST_TTL_MS = 60_000
_MAX_METHOD = 128
_DECIDED_BY_HANDLER = ("tools/call", "resources/read", "prompts/get", "completion/complete")
_Context = ServerRequestContext[Any, Any]
_T = TypeVar("_T")
_ItemT = TypeVar("_ItemT")


class McpTransport:
    """Translates between MCP and the gate.

    Args:
        caller_of: returns the caller of the request that a context belongs to.
        on_refused: called with the context and the refusal when the gate refuses a request.
    """

    def __init__(
        self,
        gate: Gate,
        resources: Resources,
        prompts: Prompts,
        *,
        caller_of: Callable[[_Context], Caller],
        on_refused: Callable[[_Context, Refused], None] = lambda *_: None,
    ) -> None:
        self._gate = gate
        self._resources = resources
        self._prompts = prompts
        self._caller_of = caller_of
        self._on_refused = on_refused
        self.changes = InMemorySubscriptionBus()
        self._streams = ListenHandler(self.changes)
        self._draining = False
        self.server: Server[Any] = Server(
            "enterprise-mcp",
            version=__version__,
            title="Enterprise MCP",
            instructions=instructions(tool.family for tool in gate.catalog),
            get_tool_input_schema=self._input_schema,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_resource_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
            on_subscriptions_listen=self._listen,
        )
        self.server.middleware.extend((self._without_details, self._decide))

    async def _without_details(self, ctx: _Context, call_next: CallNext) -> HandlerResult:
        """Give every error the documented `data`; of an unforeseen error the client gets only the id.

        Its message, raised here or in the gate, is in the log.
        """
        try:
            return await call_next(ctx)
        except Exception as error:
            raise self.documented(self._caller_of(ctx), ctx.method, error) from error

    def documented(self, caller: Caller, method: str, error: Exception) -> MCPError:
        """Return the error that the client gets for one that a request raised."""
        match error:
            case MCPError():
                number, message, data = error.code, error.message, error.data
            case ValidationError():
                # By the SDK: the parameters do not fit the method.
                number, message, data = types.INVALID_PARAMS, "Invalid request parameters", None
            case _:
                if not isinstance(error, InternalError):
                    error = self._gate.internal_error(caller, method[:_MAX_METHOD], error)
                number, message, data = types.INTERNAL_ERROR, str(error), None
        return MCPError(number, message, error_data(number, caller.request_id, data))

    async def _decide(self, ctx: _Context, call_next: CallNext) -> HandlerResult:
        """Take every method through the gate; handlers of methods with a target do it themselves."""
        # Notifications have no handler here, so there is nothing to permit (docs/policy-authoring.md).
        if ctx.request_id is None or ctx.method in _DECIDED_BY_HANDLER:
            return await call_next(ctx)
        method = ctx.method if ctx.method in SPEC_CLIENT_METHODS else ctx.method[:_MAX_METHOD]
        call = Call(method=method, resource=PolicyResource("server", self.server.name))
        if ctx.method == "subscriptions/listen":
            # A stream lasts: the decision and the audit row are about its opening.
            await self._perform(ctx, call, _nothing)
            return await call_next(ctx)

        async def work(_: Obligations) -> HandlerResult | MCPError | ValidationError:
            try:
                return await call_next(ctx)
            except (MCPError, ValidationError) as error:
                return error

        result = await self._perform(ctx, call, work)
        if isinstance(result, MCPError | ValidationError):
            raise result
        return result

    async def _listen(
        self, ctx: _Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        if self._draining:
            data = {"code": DRAINING.code, "retryable": DRAINING.retryable}
            raise MCPError(DRAINING.number, "this node is stopping; try again", data)
        return await self._streams(ctx, params)

    def declares(self, keyword: str) -> bool:
        """Tell whether the input schema of any tool has a keyword."""
        return any(f'"{keyword}"' in json.dumps(tool.input_schema) for tool in self._gate.catalog)

    def drain(self) -> None:
        """End every event stream with its result, and open no further one."""
        self._draining = True
        self._streams.close()

    async def _perform(
        self, ctx: _Context, call: Call, work: Callable[[Obligations], Awaitable[_T]]
    ) -> _T:
        try:
            return (
                await self._gate.perform(
                    self._caller_of(ctx),
                    call,
                    work,
                    outcome_of=lambda value: "error" if isinstance(value, Exception) else "ok",
                )
            ).value
        except Refused as refusal:
            raise self._error(ctx, refusal) from refusal

    def _input_schema(self, name: str) -> dict[str, Any] | None:
        tool = self._gate.catalog.find(name)
        return None if tool is None else tool.input_schema

    async def _list_tools(
        self, ctx: _Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        visible = (await self._visible(ctx)).tools
        tools, cursor = _page(
            ctx,
            params,
            [t for t in self._gate.catalog if t.name in visible],
            lambda tool: tool.name,
        )
        return types.ListToolsResult(
            tools=[tool_declaration(tool) for tool in tools],
            next_cursor=cursor,
            ttl_ms=_LIST_TTL_MS,
            cache_scope="private",
        )

    async def _list_resources(
        self, ctx: _Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        resources, cursor = await self._page_of_resources(ctx, params, templates=False)
        return types.ListResourcesResult(
            resources=[resource_declaration(resource) for resource in resources],
            next_cursor=cursor,
            ttl_ms=_LIST_TTL_MS,
            cache_scope="private",
        )

    async def _list_resource_templates(
        self, ctx: _Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        resources, cursor = await self._page_of_resources(ctx, params, templates=True)
        return types.ListResourceTemplatesResult(
            resource_templates=[template_declaration(resource) for resource in resources],
            next_cursor=cursor,
            ttl_ms=_LIST_TTL_MS,
            cache_scope="private",
        )

    async def _page_of_resources(
        self, ctx: _Context, params: types.PaginatedRequestParams | None, *, templates: bool
    ) -> tuple[list[Resource], str | None]:
        visible = (await self._visible(ctx)).resources
        resources = [
            resource
            for resource in self._resources
            if resource.uri in visible and bool(resource.parameters) == templates
        ]
        return _page(ctx, params, resources, lambda resource: resource.uri)

    async def _list_prompts(
        self, ctx: _Context, params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        visible = (await self._visible(ctx)).prompts
        prompts, cursor = _page(
            ctx, params, [p for p in self._prompts if p.name in visible], lambda prompt: prompt.name
        )
        return types.ListPromptsResult(
            prompts=[prompt_declaration(prompt) for prompt in prompts],
            next_cursor=cursor,
            ttl_ms=_LIST_TTL_MS,
            cache_scope="private",
        )

    async def _get_prompt(
        self, ctx: _Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        try:
            answer = await self._prompts.get(
                self._gate, self._caller_of(ctx), params.name, params.arguments or {}
            )
        except InvalidArguments as error:
            raise MCPError(types.INVALID_PARAMS, f"Invalid arguments: {error}") from error
        except Refused as refusal:
            raise self._error(ctx, refusal) from refusal
        rendered = answer.value
        return types.GetPromptResult(
            description=rendered.description,
            messages=[
                types.PromptMessage(
                    role="user", content=types.TextContent(type="text", text=rendered.text)
                )
            ],
        )

    async def _complete(
        self, ctx: _Context, params: types.CompleteRequestParams
    ) -> types.CompleteResult:
        caller, argument = self._caller_of(ctx), params.argument
        try:
            given = (params.context.arguments if params.context else None) or {}
            if isinstance(params.ref, types.PromptReference):
                found = await self._prompts.complete(
                    self._gate,
                    caller,
                    params.ref.name,
                    argument.name,
                    argument.value,
                    given=given,
                    resources=self._resources,
                )
            else:
                found = await self._resources.complete(
                    self._gate, caller, params.ref.uri, argument.name, argument.value, given=given
                )
        except InvalidArguments as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from error
        except Failed as failure:
            raise failure_error(failure) from failure
        except Refused as refusal:
            raise self._error(ctx, refusal) from refusal
        return types.CompleteResult(
            completion=types.Completion(
                values=list(found.values), total=found.total, has_more=found.has_more
            )
        )

    async def _call_tool(
        self, ctx: _Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        try:
            return await self.call_tool(
                self._caller_of(ctx), params, progress=_increasing(ctx.session.report_progress)
            )
        except Refused as refusal:
            raise self._error(ctx, refusal) from refusal

    async def call_tool(
        self,
        caller: Caller,
        params: types.CallToolRequestParams,
        *,
        progress: Progress | None = None,
    ) -> types.CallToolResult:
        """Call a tool.

        Args:
            progress: gets the progress of a long call.

        Raises:
            Refused, InternalError: as `mcp_server.gate.call_tool`.
        """
        try:
            answer = await call_tool(
                self._gate, caller, params.name, params.arguments or {}, progress=progress
            )
        except InvalidArguments as error:
            return tool_error(f"Invalid arguments: {error}")
        result = answer.value
        if result.is_error:
            return tool_error(result.text, result.source)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=result.text)],
            structured_content=result.structured,
            _meta=untrusted(result.source),
        )

    async def _read_resource(
        self, ctx: _Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(params.uri)
        try:
            reading = (await self._resources.read(self._gate, self._caller_of(ctx), uri)).value
        except Failed as failure:
            raise failure_error(failure, uri=uri) from failure
        except Refused as refusal:
            raise self._error(ctx, refusal, uri=uri) from refusal
        return types.ReadResourceResult(
            contents=[
                types.TextResourceContents(
                    uri=uri,
                    mime_type=reading.mime_type,
                    text=reading.text,
                    _meta=untrusted(reading.source),
                )
            ],
            ttl_ms=0,
            cache_scope="private",
        )

    async def _visible(self, ctx: _Context) -> Visible:
        try:
            return await self._gate.visible(self._caller_of(ctx), ctx.method)
        except Refused as refusal:
            raise self._error(ctx, refusal) from refusal

    def _error(self, ctx: _Context, refusal: Refused, **about: str) -> MCPError:
        self._on_refused(ctx, refusal)
        return refusal_error(ctx.method, refusal, **about)


def _increasing(progress: Progress) -> Progress:
    """Return a progress channel that drops reports without progress.

    The progress must increase with each notification (MCP, basic/utilities/progress).
    """
    furthest = -math.inf

    async def report(done: float, total: float | None, message: str) -> None:
        nonlocal furthest
        if done > furthest:
            furthest = done
            await progress(done, total, message)

    return report


async def _nothing(_: Obligations) -> None:
    return None


def _page(
    ctx: _Context,
    params: types.PaginatedRequestParams | None,
    items: Sequence[_ItemT],
    key: Callable[[_ItemT], str],
) -> tuple[list[_ItemT], str | None]:
    try:
        return page(ctx.method, items, key, params.cursor if params else None)
    except InvalidCursor as error:
        raise MCPError(types.INVALID_PARAMS, str(error)) from error
