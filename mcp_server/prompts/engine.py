"""Lists, renders and completes prompts as the policy decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mcp_server.gate import Answer, Call, Caller, Gate, Refused, tool_context
from mcp_server.gate.resource_reads import (
    COMPLETION_TIMEOUT_S,
    Completion,
    Resources,
    completion_fault,
)
from mcp_server.policy import Obligations, Resource
from mcp_server.prompts.declaration import FromTool, Prompt
from mcp_server.redaction import mask_fields
from mcp_server.tools.catalog import Catalog, InvalidArguments

__all__ = ["Prompts", "Rendered"]

_MAX_NAME = 128
# Maximum rows scanned for completions: one page, because each page reads the whole list.
_MAX_SCANNED_ROWS = 500


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered prompt."""

    description: str
    text: str


class Prompts:
    """The prompts of one server, each with all its required tools configured."""

    def __init__(self, prompts: Iterable[Prompt], catalog: Catalog) -> None:
        self._catalog = catalog
        names = {tool.name for tool in catalog}
        self._prompts = {
            prompt.name: prompt
            for prompt in sorted(prompts, key=lambda prompt: prompt.name)
            if prompt.required <= names
        }

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._prompts.values())

    async def get(
        self, gate: Gate, caller: Caller, name: str, arguments: Mapping[str, str]
    ) -> Answer[Rendered]:
        """Return a rendered prompt, if the policy allows it.

        Raises:
            InvalidArguments: the prompt is allowed, and its arguments are invalid.
            Refused, Limited, NodeUnavailable: as `Gate.perform`; the same for hidden and absent prompts.
        """
        prompt = self._prompts.get(name)
        call = Call("prompts/get", Resource("prompt", name[:_MAX_NAME]), arguments=arguments)

        async def work(_: Obligations) -> Rendered:
            if prompt is None:
                # The policy's catalogue contains it, but its tools are not configured here.
                raise InvalidArguments("there is no such prompt")
            text = prompt.render(prompt.parse(arguments), self._catalog)
            return Rendered(prompt.description, text)

        return await gate.perform_or_fail(caller, call, work)

    async def complete(
        self,
        gate: Gate,
        caller: Caller,
        name: str,
        argument: str,
        text: str,
        *,
        given: Mapping[str, str],
        resources: Resources,
    ) -> Completion:
        """Return values of an argument that begin with `text`.

        Names from a backend need a second decision, on the tool or resource that lists them: a caller
        who may not read them there gets none here.

        Args:
            given: values of other arguments, as far as the client knows them.
            resources: the resources that complete arguments.

        Raises:
            InvalidArguments: the prompt is allowed, and has no such argument.
            Refused, Limited, NodeUnavailable: as `get`.
            Failed: the backend does not answer.
        """
        prompt = self._prompts.get(name)
        call = Call(
            "completion/complete",
            Resource("prompt", name[:_MAX_NAME]),
            arguments={"argument": argument, "value": text},
        )

        async def work(_: Obligations) -> Completion:
            fault = completion_fault(argument, text, given)
            if fault is not None:
                raise InvalidArguments(fault)
            choices = None if prompt is None else prompt.choices(argument)
            if choices is None:
                known = ", ".join(prompt.arguments.model_fields) if prompt else ""
                raise InvalidArguments(
                    f"{argument[:64]}: unknown argument; known arguments: {known or 'none'}"
                )
            return Completion.of(choice for choice in choices if choice.startswith(text))

        chosen = (await gate.perform_or_fail(caller, call, work)).value
        source = None if prompt is None else prompt.completed_from.get(argument)
        if prompt is None or source is None:
            return chosen
        try:
            if isinstance(source, FromTool):
                return await self._listed(
                    gate, caller, source, argument=argument, text=text, known=prompt.known(given)
                )
            return await resources.complete(
                gate, caller, source.uri, source.parameter, text, given=given
            )
        except Refused as refusal:
            if refusal.retryable:
                raise
            return chosen

    async def _listed(
        self,
        gate: Gate,
        caller: Caller,
        source: FromTool,
        *,
        argument: str,
        text: str,
        known: Mapping[str, str],
    ) -> Completion:
        """Return names from the rows of a tool; none if the tool is absent or refuses the arguments."""
        tool = next((each for each in self._catalog if each.name == source.tool), None)
        if tool is None or tool.rows is None:
            return Completion.of(())
        rows = tool.rows
        try:
            arguments = tool.parse({**source.arguments(known), "limit": _MAX_SCANNED_ROWS})
        except InvalidArguments:
            return Completion.of(())
        call = Call(
            "completion/complete",
            Resource("tool", tool.name, tool.properties(arguments)),
            arguments={"argument": argument, "value": text},
            tool=tool.name,
            timeout_s=COMPLETION_TIMEOUT_S,
        )

        async def work(obligations: Obligations) -> Completion:
            masked = tool.masked_names(obligations.redact)
            context = tool_context(caller, dataclasses.replace(obligations, redact=masked))
            found: set[str] = set()
            page = await tool.run(arguments, context)
            for row in getattr(page, rows):
                shown = mask_fields(row.model_dump(mode="json"), masked)
                found.update(source.names(shown))
            return Completion.of(
                (name for name in sorted(found) if name.startswith(text)),
                all_seen=not page.truncated,
            )

        return (await gate.perform_or_fail(caller, call, work, source=tool.source)).value
