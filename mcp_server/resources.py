"""The `enterprise://` resources: documents a client may read without calling a tool."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mcp_server.gate import Answer, Call, Caller, Failed, Gate, tool_context
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
"""The most values of one completion, as the MCP specification says."""

COMPLETION_TIMEOUT_S = 5.0
"""How long a completion may take, in seconds."""
_MAX_URI = 2048
LONGEST_COMPLETED = 1024
"""Characters of a name or a value in the request for a completion at most."""


@dataclass(frozen=True, kw_only=True)
class CallerResource(Resource):
    """A document about the caller, made by the server itself; nothing in it comes from outside.

    Attributes:
        read_for: returns the document as JSON text; it needs the whole caller, and not only what a
            backend may know of one.
    """

    read_for: Callable[[Caller], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a caller gets of a document, after obligations."""

    uri: str
    mime_type: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Completion:
    """Values that a parameter or an argument may have.

    Attributes:
        total: how many there are, where that is known.
    """

    values: tuple[str, ...]
    total: int | None
    has_more: bool

    @classmethod
    def of(cls, values: Iterable[str], *, all_seen: bool = True) -> Completion:
        """Return the first values, and whether these are all.

        One that looks like a secret is none of the things that have names, and one that the policy
        masks has none to tell: they are left out.

        Args:
            all_seen: whether there was nothing more to look at for values.
        """
        found = tuple(
            value
            for value in dict.fromkeys(values)
            if value != MASK and redact_text(value) == value
        )
        more = len(found) > MAX_COMPLETIONS or not all_seen
        return cls(found[:MAX_COMPLETIONS], None if more else len(found), more)


def completion_fault(argument: str, text: str, given: Mapping[str, str]) -> str | None:
    """Return what is wrong with the request for a completion where a text of it is too long."""
    if max(map(len, (argument, text, *given.values()))) <= LONGEST_COMPLETED:
        return None
    return f"a completion takes names and values of at most {LONGEST_COMPLETED} characters"


class Resources:
    """All documents of one server: single ones, and templates."""

    def __init__(self, documents: Iterable[Resource]) -> None:
        self._documents = tuple(sorted(documents, key=lambda document: document.uri))

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._documents)

    def find(self, uri: str) -> tuple[Resource, Mapping[str, str]] | None:
        """Return the document that `uri` names and the values of its parameters, or None."""
        for document in self._documents:
            values = document.match(uri)
            if values is not None:
                return document, values
        return None

    async def read(self, gate: Gate, caller: Caller, uri: str) -> Answer[Reading]:
        """Read the document that `uri` names, if OPA lets the caller.

        What the policy judges is the declared document or template with the cluster, namespace or
        asset that the URI names. A document that does not exist and one that is hidden are refused
        alike.

        Raises:
            Refused, Limited, NodeUnavailable: as `Gate.perform`.
            Failed: the backend could not give the document, or a parameter names nothing that is there.
        """
        found = self.find(uri)
        if found is None:
            # The words of a template are no document, and must not be judged as one.
            named = "" if any(uri == document.uri for document in self) else uri[:_MAX_URI]
            resource = PolicyResource("resource", named)
        else:
            document, parameters = found
            resource = PolicyResource("resource", document.uri, document.properties(parameters))
        call = Call("resources/read", resource, arguments={"uri": uri[:_MAX_URI]})

        async def work(obligations: Obligations) -> Reading:
            if found is None:
                # The policy's catalogue knows it; this server has no backend for it.
                raise ToolError("there is no such resource")
            return await _read(*found, uri, caller, obligations)

        source = None if found is None else found[0].source
        try:
            return await gate.perform_or_fail(caller, call, work, source=source)
        except InvalidArguments as error:
            # What a parameter of the URI names is not there.
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
        """Return values for a parameter of the template `uri` that begin with `text`.

        Args:
            given: the values of other parameters, as far as the client knows them.

        Raises:
            InvalidArguments: the template, which the caller may use, has no such parameter.
            Refused, Limited, NodeUnavailable: as `Gate.perform`; alike for hidden and absent ones.
            Failed: the backend could not be asked.
        """
        document = next((known for known in self if known.uri == uri), None)
        fault = completion_fault(parameter, text, given)
        if fault is not None:
            # The policy needs not see what is refused.
            given = {}
        if document is not None:
            given = {**document.defaults, **given}
        call = Call(
            "completion/complete",
            PolicyResource(
                "resource",
                uri[:_MAX_URI],
                {} if document is None else document.properties(given),
            ),
            arguments={"argument": parameter, "value": text},
            timeout_s=COMPLETION_TIMEOUT_S,
        )

        async def work(obligations: Obligations) -> Completion:
            if fault is not None:
                raise InvalidArguments(fault)
            if document is None or parameter not in (*document.parameters, document.lists):
                known = ", ".join(document.parameters) if document else ""
                raise InvalidArguments(
                    f"{parameter[:64]}: unknown parameter; known parameters: {known or 'none'}"
                )
            obligations = _obligations_of(document, obligations)
            if document.complete is None or parameter in obligations.redact:
                return Completion.of(())
            return Completion.of(
                await document.complete(parameter, text, given, tool_context(caller, obligations))
            )

        source = None if document is None else document.source
        return (await gate.perform_or_fail(caller, call, work, source=source)).value


async def _read(
    document: Resource,
    parameters: Mapping[str, str],
    uri: str,
    caller: Caller,
    obligations: Obligations,
) -> Reading:
    if isinstance(document, CallerResource):
        text = await document.read_for(caller)
    else:
        obligations = _obligations_of(document, obligations)
        context: ToolContext = tool_context(caller, obligations)
        text = _presented(await document.read(context, parameters), obligations)
    size = len(text.encode())
    if size > RESULT_BUDGET_BYTES:
        raise ToolError(
            f"the document is larger than {RESULT_BUDGET_BYTES // 1024} KiB; "
            f"a tool of {document.family} gives a part of it"
        )
    return Reading(uri, document.mime_type, text, document.source)


def _obligations_of(document: Resource, obligations: Obligations) -> Obligations:
    return dataclasses.replace(obligations, redact=document.masked_names(obligations.redact))


def _presented(text: str, obligations: Obligations) -> str:
    """Return a document's JSON without secrets, and masked as the policy demands."""
    value = redact_json(json.loads(text))
    if isinstance(value, dict):
        value = mask_fields(value, obligations.redact)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
