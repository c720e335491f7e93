"""Tool calls: from the name and arguments that a client sends to the answer that it gets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp_server.audit import Outcome
from mcp_server.gate.errors import InternalError, not_available
from mcp_server.gate.idempotency import IdempotencyKey, KeyConflict
from mcp_server.gate.pipeline import Gate
from mcp_server.gate.request import Answer, Call, Caller, ToolAnswer
from mcp_server.infrastructure import telemetry
from mcp_server.policy import Obligations, Resource
from mcp_server.redaction import mask_fields, mask_text, redact_text
from mcp_server.tools.backend import OutcomeUnknown
from mcp_server.tools.catalog import InvalidArguments, Tool, ToolContext, ToolError
from mcp_server.tools.presentation import marked, presented

__all__ = ["Progress", "call_tool", "tool_context"]

Progress = Callable[[float, float | None, str], Awaitable[None]]
"""Gets the progress of a long call: the part done, the whole (where known), and a message for people."""

_WIRE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_TOOL = 128


async def call_tool(
    gate: Gate,
    caller: Caller,
    wire_name: str,
    raw_arguments: Mapping[str, Any],
    *,
    progress: Progress | None = None,
    key: IdempotencyKey | None = None,
) -> Answer[ToolAnswer]:
    """Call the tool that clients know as `wire_name`.

    A tool that does not exist and one that the caller may not see are refused alike.

    Args:
        progress: gets the progress of a long call.
        key: a change with this key is made once; without meaning for a call that changes nothing.

    Raises:
        KeyConflict: the call was not made because of its key.
        InvalidArguments: the arguments do not fit a tool that the caller may see, or the tool, which
            the policy allowed to run, refused them.
        Refused, Limited, NodeUnavailable: as `Gate.perform`.
        InternalError: as `Gate.perform`, when nothing can have been changed.
    """
    tool = gate.catalog.find(wire_name)
    if tool is None:
        return await _refuse_unknown(gate, caller, wire_name)
    try:
        arguments = tool.parse(raw_arguments)
    except InvalidArguments:
        if tool.name not in (await gate.visible(caller, "tools/list")).tools:
            return await _refuse_unknown(gate, caller, wire_name)
        # The arguments are not recorded: they may hold anything.
        call = Call("tools/call", Resource("tool", tool.name), tool=tool.name)
        await gate.refuse_invalid(caller, call)
        raise
    call = Call(
        method="tools/call",
        resource=Resource("tool", tool.name, tool.properties(arguments)),
        arguments=arguments.model_dump(mode="json"),
        tool=tool.name,
        changes=tool.changes(arguments),
        timeout_s=tool.timeout_s,
    )

    async def run(obligations: Obligations) -> ToolAnswer | InvalidArguments:
        masked = tool.masked_names(obligations.redact)
        context = tool_context(
            caller, dataclasses.replace(obligations, redact=masked), progress=progress
        )
        try:
            result = await tool.run(arguments, context)
            shown = await presented(
                tool, arguments, result, oblige=lambda document: mask_fields(document, masked)
            )
        except InvalidArguments as error:
            # The server's own words, unlike those of a ToolError. Raised once the row is committed.
            return error
        except ToolError as error:
            # The message may repeat a backend: text from outside, as a result is.
            text = marked(tool.source, mask_text(redact_text(str(error)), masked))
            return _error_answer(tool, text, retryable=error.retryable)
        return ToolAnswer(shown.text, shown.structured, tool.source)

    async def work(obligations: Obligations) -> ToolAnswer | InvalidArguments | KeyConflict:
        if key is None or not call.changes:
            return await run(obligations)
        request = [tool.name, call.arguments]
        return await key.run(request, tool.timeout_s, lambda: run(obligations))

    try:
        answer = await gate.perform(caller, call, work, outcome_of=_outcome_of, text_of=_text_of)
    except TimeoutError:
        return _ended_early(tool, gate.why_late, changes=call.changes)
    except InternalError as internal:
        if not (call.changes and internal.begun):
            raise
        why = f"failed inside the server (request {internal.request_id})"
        return _ended_early(tool, why, changes=True)
    match answer.value:
        case InvalidArguments() | KeyConflict() as error:
            raise error
        case value:
            return Answer(value, answer.quota)


def tool_context(
    caller: Caller, obligations: Obligations, progress: Progress | None = None
) -> ToolContext:
    """Return what a tool or a resource may know about a caller whose call was allowed."""
    subject = caller.subject
    context = ToolContext(
        user=subject.id,
        tenant=subject.tenant,
        groups=(*subject.roles, *subject.groups),
        request_id=caller.request_id,
        max_items=obligations.max_items,
        masked=obligations.redact,
    )
    if progress is None:
        return context

    async def report(done: float, total: float | None, message: str) -> None:
        # The message may repeat a backend.
        await progress(done, total, redact_text(message))

    return dataclasses.replace(context, progress=report)


async def _refuse_unknown(gate: Gate, caller: Caller, wire_name: str) -> Answer[ToolAnswer]:
    # A text that cannot be a tool's name on the wire may be its name in the policy's catalogue, and the
    # policy would allow it.
    name = wire_name if _WIRE_NAME.fullmatch(wire_name) else ""
    call = Call("tools/call", Resource("tool", name), tool=wire_name[:_LONGEST_TOOL])

    async def work(_: Obligations) -> ToolAnswer:
        # Reached only with a policy that allows tools outside its catalogue. Every node would say the
        # same, so it must not count as unavailable.
        telemetry.log.error("policy_allowed_absent_tool", tool=wire_name[:_LONGEST_TOOL])
        raise not_available()

    return await gate.perform(caller, call, work)


def _ended_early(tool: Tool[Any, Any], why: str, *, changes: bool) -> Answer[ToolAnswer]:
    """Return the answer for a call that was ended before its result."""
    error = (
        OutcomeUnknown(tool.wire_name, why, verify_hint=tool.verify_hint)
        if changes
        else ToolError(f"{tool.wire_name} {why}", retryable=True)
    )
    return Answer(_error_answer(tool, str(error), retryable=error.retryable), ())


def _error_answer(tool: Tool[Any, Any], text: str, *, retryable: bool) -> ToolAnswer:
    return ToolAnswer(text, None, tool.source, is_error=True, retryable=retryable)


def _text_of(value: ToolAnswer | InvalidArguments | KeyConflict) -> str | None:
    return value.text if isinstance(value, ToolAnswer) else None


def _outcome_of(value: ToolAnswer | InvalidArguments | KeyConflict) -> Outcome:
    if isinstance(value, InvalidArguments):
        return "invalid_arguments"
    if isinstance(value, KeyConflict) or value.replayed:
        return "not_repeated"
    return "tool_error" if value.is_error else "ok"
