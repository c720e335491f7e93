"""How a tool is declared: once, for every door, for the schemas, the docs and the policy's catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = [
    "Arguments",
    "Catalog",
    "InvalidArguments",
    "Result",
    "Scope",
    "Tool",
    "ToolContext",
    "ToolError",
]


class Arguments(BaseModel):
    """Base of every tool's arguments: typed strictly, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Result(BaseModel):
    """Base of every tool's result."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolError(Exception):
    """The tool could not do its work; the message is for the caller (and for a model to act on).

    `retryable` tells that the same call may work a little later.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class InvalidArguments(Exception):
    """The arguments do not fit the tool's schema; the message names every fault."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know of its caller, and how much it may return.

    Attributes:
        user: the caller's id.
        tenant: whose data the tool may touch.
        max_items: the most items any list of the result may hold, or None.
    """

    user: str
    tenant: str
    max_items: int | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which argument names the resource a call works on, so that the policy can judge it."""

    namespace: str | None = None
    cluster: str | None = None
    asset: str | None = None
    all_namespaces: str | None = None


ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)
ResultT = TypeVar("ResultT", bound=Result)


@dataclass(frozen=True)
class Tool(Generic[ArgumentsT, ResultT]):
    """One tool.

    Attributes:
        name: the policy's name, `family:verb_noun`.
        description: for a model that chooses among tools; short.
        permission: what the policy asks of the caller, such as `metrics:query`.
        run: does the work; raises ToolError.
        render: the result (as JSON-ready data, after obligations) as a short text for a model.
        read_only, destructive, idempotent: the hints of the MCP specification; they must be true.
        timeout_s: the deadline of one call in seconds, which an obligation may shorten.
    """

    name: str
    title: str
    description: str
    permission: str
    arguments: type[ArgumentsT]
    result: type[ResultT]
    run: Callable[[ArgumentsT, ToolContext], Awaitable[ResultT]]
    render: Callable[[Mapping[str, Any]], str]
    read_only: bool
    destructive: bool = False
    idempotent: bool = True
    scope: Scope = field(default_factory=Scope)
    timeout_s: float = 15.0

    @property
    def family(self) -> str:
        """The part of the name before the colon: `monitoring`."""
        return self.name.partition(":")[0]

    @cached_property
    def wire_name(self) -> str:
        """The name clients use: letters, digits, `_` and `-` only."""
        return self.name.replace(":", "_")

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        return _schema(self.arguments)

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the structured result."""
        return _schema(self.result, mode="serialization")

    def parse(self, arguments: Mapping[str, Any]) -> ArgumentsT:
        """Check raw arguments and return them typed, with defaults filled in.

        Raises:
            InvalidArguments: naming each fault, and the known arguments where one is unknown.
        """
        try:
            return self.arguments.model_validate(dict(arguments))
        except ValidationError as error:
            raise InvalidArguments("; ".join(self._faults(error))) from None

    def properties(self, arguments: ArgumentsT) -> dict[str, Any]:
        """Return what the policy may judge of the resource: namespace, cluster, asset."""
        scope = {
            "namespace": self.scope.namespace,
            "cluster": self.scope.cluster,
            "asset": self.scope.asset,
            "all_namespaces": self.scope.all_namespaces,
        }
        return {
            key: value
            for key, name in scope.items()
            if name is not None and (value := getattr(arguments, name)) is not None
        }

    def _faults(self, error: ValidationError) -> Iterator[str]:
        for fault in error.errors(include_url=False, include_input=False):
            where = ".".join(str(part) for part in fault["loc"]) or "arguments"
            if fault["type"] == "extra_forbidden":
                known = ", ".join(self.arguments.model_fields) or "none"
                yield f"{where}: unknown argument; known arguments: {known}"
            else:
                yield f"{where}: {fault['msg']}"


class Catalog:
    """All tools of one server, by the names of both worlds."""

    def __init__(self, tools: Iterable[Tool[Any, Any]]) -> None:
        self.tools: tuple[Tool[Any, Any], ...] = tuple(sorted(tools, key=lambda tool: tool.name))
        self._by_wire_name = {tool.wire_name: tool for tool in self.tools}
        if len(self._by_wire_name) != len(self.tools):
            raise ValueError("two tools share a name on the wire")

    def __iter__(self) -> Iterator[Tool[Any, Any]]:
        return iter(self.tools)

    def __len__(self) -> int:
        return len(self.tools)

    def find(self, wire_name: str) -> Tool[Any, Any] | None:
        """Return the tool that clients call `wire_name`, or None."""
        return self._by_wire_name.get(wire_name)


def _schema(model: type[BaseModel], mode: Any = "validation") -> dict[str, Any]:
    schema = model.model_json_schema(mode=mode)
    _drop_titles(schema)
    # The base classes' docstrings would stand as descriptions of the whole.
    schema.pop("description", None)
    return schema


def _drop_titles(node: Any) -> None:
    """Remove pydantic's generated titles: they repeat the names and cost every client tokens."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        for value in node.values():
            _drop_titles(value)
    elif isinstance(node, list):
        for value in node:
            _drop_titles(value)
