"""Reads and completions of the `enterprise://` resources, through the pipeline."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mcp_server.gate.errors import Failed
from mcp_server.gate.pipeline import Gate
from mcp_server.gate.request import Answer, Call, Caller
from mcp_server.gate.tool_calls import tool_context
from mcp_server.policy import Obligations
from mcp_server.policy import Resource as PolicyResource
from mcp_server.redaction import MASK, mask_fields, redact_json, redact_text
from mcp_server.tools.catalog import InvalidArguments, ToolContext, ToolError
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES
from mcp_server.tools.resources import Resource

__all__ = [
    "COMPLETION_TIMEOUT_S",
    "LONGEST_COMPLETED",
    "MAX_COMPLETIONS",
    "CallerResource",
    "Completion",
    "Reading",
    "Resources",
    "completion_fault",
]

MAX_COMPLETIONS = 100
"""Maximum values of one completion, by the MCP specification."""

COMPLETION_TIMEOUT_S = 5.0
"""Deadline of a completion in seconds."""
_MAX_URI = 2048
LONGEST_COMPLETED = 1024
"""Maximum characters of a name or value in a completion request."""


@dataclass(frozen=True, kw_only=True)
class CallerResource(Resource):
    """A resource about the caller, made by the server itself; no text in it comes from outside.

    Attributes:
        read_for: returns the resource as JSON text; it gets the whole caller, unlike a backend.
    """

    read_for: Callable[[Caller], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Reading:
    """The text of a resource after obligations."""

    uri: str
    mime_type: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Completion:
    """Possible values of a parameter or an argument.

    Attributes:
        total: the number of values, where it is known.
    """

    values: tuple[str, ...]
    total: int | None
    has_more: bool

    @classmethod
    def of(cls, values: Iterable[str], *, all_seen: bool = True) -> Completion:
        """Return the first values, and whether there are more.

        Values that look like a secret and values that the policy masks are left out.

        Args:
            all_seen: whether the backend returned everything.
        """
        found = tuple(
            value
            for value in dict.fromkeys(values)
            if value != MASK and redact_text(value) == value
        )
        more = len(found) > MAX_COMPLETIONS or not all_seen
        return cls(found[:MAX_COMPLETIONS], None if more else len(found), more)


def completion_fault(argument: str, text: str, given: Mapping[str, str]) -> str | None:
    """Return the error of a completion request with a text that is too long, or None."""
    if max(map(len, (argument, text, *given.values()))) <= LONGEST_COMPLETED:
        return None
    return f"names and values in a completion request have at most {LONGEST_COMPLETED} characters"


class Resources:
    """All resources and resource templates of one server."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._resources = tuple(sorted(resources, key=lambda resource: resource.uri))

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources)

    def find(self, uri: str) -> tuple[Resource, Mapping[str, str]] | None:
        """Return the resource or template of `uri` and the values of its parameters, or None."""
        for resource in self._resources:
            values = resource.match(uri)
            if values is not None:
                return resource, values
        return None

    async def read(self, gate: Gate, caller: Caller, uri: str) -> Answer[Reading]:
        """Read the resource at `uri`, if the policy permits it.

        The policy decides about the declared resource or template, with the cluster, namespace or asset
        of the URI. A resource that does not exist and a hidden one are refused alike.

        Raises:
            Refused, Limited, NodeUnavailable: as `Gate.perform`.
            Failed: the backend did not return it, or a parameter names nothing that exists.
        """
        found = self.find(uri)
        if found is None:
            # The text of a template is no resource; the policy must not decide about it as one.
            named = "" if any(uri == resource.uri for resource in self) else uri[:_MAX_URI]
            target = PolicyResource("resource", named)
        else:
            resource, parameters = found
            target = PolicyResource("resource", resource.uri, resource.properties(parameters))
        call = Call("resources/read", target, arguments={"uri": uri[:_MAX_URI]})

        async def work(obligations: Obligations) -> Reading:
            if found is None:
                # It is in the policy's catalogue, and this server has no backend for it.
                raise ToolError("there is no such resource")
            return await _read(*found, uri, caller, obligations)

        source = None if found is None else found[0].source
        try:
            return await gate.perform_or_fail(caller, call, work, source=source)
        except InvalidArguments as error:
            # A parameter of the URI names nothing that exists.
            raise Failed(str(error)) from error

    async def complete(
        self,
        gate: Gate,
        caller: Caller,
        uri: str,
        parameter: str,
        text: str,
        *,
        given: Mapping[str, str],
    ) -> Completion:
        """Return values of a parameter of the template `uri` that begin with `text`.

        Args:
            given: the values of other parameters that the client knows.

        Raises:
            InvalidArguments: the template, which the caller may use, has no such parameter.
            Refused, Limited, NodeUnavailable: as `Gate.perform`; alike for hidden and absent ones.
            Failed: the backend did not answer.
        """
        resource = next((known for known in self if known.uri == uri), None)
        fault = completion_fault(parameter, text, given)
        if fault is not None:
            # The request is refused: the policy does not need these values.
            given = {}
        if resource is not None:
            given = {**resource.defaults, **given}
        call = Call(
            "completion/complete",
            PolicyResource(
                "resource",
                uri[:_MAX_URI],
                {} if resource is None else resource.properties(given),
            ),
            arguments={"argument": parameter, "value": text},
            timeout_s=COMPLETION_TIMEOUT_S,
        )

        async def work(obligations: Obligations) -> Completion:
            if fault is not None:
                raise InvalidArguments(fault)
            if resource is None or parameter not in (*resource.parameters, resource.lists):
                known = ", ".join(resource.parameters) if resource else ""
                raise InvalidArguments(
                    f"{parameter[:64]}: unknown parameter; known parameters: {known or 'none'}"
                )
            obligations = _obligations_of(resource, obligations)
            if resource.complete is None or parameter in obligations.redact:
                return Completion.of(())
            return Completion.of(
                await resource.complete(parameter, text, given, tool_context(caller, obligations))
            )

        source = None if resource is None else resource.source
        return (await gate.perform_or_fail(caller, call, work, source=source)).value


async def _read(
    resource: Resource,
    parameters: Mapping[str, str],
    uri: str,
    caller: Caller,
    obligations: Obligations,
) -> Reading:
    if isinstance(resource, CallerResource):
        text = await resource.read_for(caller)
    else:
        obligations = _obligations_of(resource, obligations)
        context: ToolContext = tool_context(caller, obligations)
        text = _presented(await resource.read(context, parameters), obligations)
    size = len(text.encode())
    if size > RESULT_BUDGET_BYTES:
        raise ToolError(
            f"the resource is larger than {RESULT_BUDGET_BYTES // 1024} KiB; "
            f"a tool of {resource.family} gives a part of it"
        )
    return Reading(uri, resource.mime_type, text, resource.source)


def _obligations_of(resource: Resource, obligations: Obligations) -> Obligations:
    return dataclasses.replace(obligations, redact=resource.masked_names(obligations.redact))


def _presented(text: str, obligations: Obligations) -> str:
    """Return the JSON of a resource without secrets, masked as the policy demands."""
    value = redact_json(json.loads(text))
    if isinstance(value, dict):
        value = mask_fields(value, obligations.redact)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
