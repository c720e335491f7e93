"""How a tool is declared: once, for every door, for the schemas, the docs and the policy's catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Generic, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

from mcp_server.redaction import redact_text
from mcp_server.redaction.masking import MASK
from mcp_server.tools.faults import InvalidArguments, validated
from mcp_server.tools.schemas import argument_schema, plain, result_schema

__all__ = [
    "LONGEST_CURSOR",
    "Arguments",
    "Catalog",
    "InvalidArguments",
    "ListArguments",
    "ListResult",
    "Result",
    "Scope",
    "Tool",
    "ToolContext",
    "ToolError",
    "hidden_with",
]


_T = TypeVar("_T")

_LONGEST_ERROR = 4000
LONGEST_CURSOR = 8192
"""Characters of a cursor at most: as it is made, and as it is taken."""


class Arguments(BaseModel):
    """Base of every tool's arguments: typed strictly, unknown names refused.

    What JSON can say in two ways is made one before it is checked, so that the policy judges what the
    tool runs: 5.0 is the integer 5 (JSON Schema Validation 2020-12, section 6.1.1), and null for an
    argument that may be left out means that it is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        optional = {
            name for name, argument in cls.model_fields.items() if not argument.is_required()
        }
        return {
            name: _whole_numbers_as_integers(given)
            for name, given in value.items()
            if given is not None or name not in optional
        }


class Result(BaseModel):
    """Base of every tool's result."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )


def _whole_numbers_as_integers(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_whole_numbers_as_integers(item) for item in value]
        case dict():
            return {name: _whole_numbers_as_integers(item) for name, item in value.items()}
        case _:
            return value


class ListArguments(Arguments):
    """Base of the arguments of every tool that returns a list.

    What they mean is told once for all tools: in the server's instructions.
    """

    limit: Annotated[int, plain("Rows of a page", ge=1, le=500)] = 50
    cursor: Annotated[
        str | None, plain("The next_cursor of the page before", max_length=LONGEST_CURSOR)
    ] = None
    fields: Annotated[list[str] | None, plain("Only these fields of each row")] = None


class ListResult(Result):
    """Base of every result that is a list; the rows are a field of the class that derives from it."""

    total: int | None
    """How many match in all, where known."""
    truncated: bool
    next_cursor: str | None = None

    _cursor_after: Callable[[int], str] | None = PrivateAttr(default=None)

    def with_cursor(self, cursor_after: Callable[[int], str]) -> Self:
        """Tell how to continue after the first n rows of this page, and return the result.

        The presentation asks it when rows must go to hold the byte budget; without it, it can only
        tell the caller to ask for less.
        """
        self._cursor_after = cursor_after
        return self

    def cursor_after(self, rows: int) -> str | None:
        """Return the cursor that continues after the first `rows` rows, or None."""
        return None if self._cursor_after is None else self._cursor_after(rows)


class ToolError(Exception):
    """The tool could not do its work; the message is for the caller (and for a model to act on).

    It may repeat what a backend said, so it is cut at 4,000 characters, without secrets then: of one
    that is cut, the rest would not be known as such. `retryable` tells that the same call may work a
    little later.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        if len(message) > _LONGEST_ERROR:
            message = redact_text(message)
        cut = len(message) > _LONGEST_ERROR
        super().__init__(message[:_LONGEST_ERROR] + "…" if cut else message)
        self.retryable = retryable


async def _unheard(_progress: float, _total: float | None, _message: str) -> None:
    """Drop a report of progress: the caller did not ask for any."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know of its caller, and how much it may return.

    Attributes:
        user: the caller's id.
        tenant: whose data the tool may touch.
        groups: the caller's roles and groups, for backends that have a lock of their own.
        request_id: joins what the tool writes elsewhere with the audit log.
        max_items: the most items any list of the result may hold, or None.
        masked: fields and labels whose values the caller may not have. Where they stand under their
            names they are masked later; what a tool makes of them, it asks `shown` for.
        progress: reports how far a long call is: done, total (or None), a message.
    """

    user: str
    tenant: str
    groups: tuple[str, ...] = ()
    request_id: str = ""
    max_items: int | None = None
    masked: frozenset[str] = frozenset()
    progress: Callable[[float, float | None, str], Awaitable[None]] = _unheard

    def shown(self, value: _T, *names: str) -> _T | str:
        """Return what has these names as a field or a label, or the mask where one is masked."""
        return value if self.masked.isdisjoint(names) else MASK

    def at_most(self, limit: int) -> int:
        """Return how many items to return when the caller asks for `limit`."""
        return limit if self.max_items is None else min(limit, self.max_items)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which argument names the resource a call works on, so that the policy can judge it.

    Attributes:
        all_namespaces: the argument that asks for all namespaces at once.
        cluster_wide: it is about all namespaces whatever the arguments are.
    """

    namespace: str | None = None
    cluster: str | None = None
    asset: str | None = None
    all_namespaces: str | None = None
    cluster_wide: bool = False


ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)
ResultT = TypeVar("ResultT", bound=Result)


def hidden_with(names: Set[str], told_by: Mapping[str, Iterable[str]]) -> frozenset[str]:
    """Return all that has to be masked where the policy masks `names`.

    Args:
        told_by: of a field or a label, which others tell its value as well.
    """
    return frozenset(names).union(*(told_by.get(name, ()) for name in names))


def _as_they_are(arguments: ArgumentsT) -> ArgumentsT:
    return arguments


def _nothing(_document: Mapping[str, Any]) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class Tool(Generic[ArgumentsT, ResultT]):
    """One tool.

    Attributes:
        name: the policy's name, `family:verb_noun`.
        description: for a model that chooses among tools; short.
        permission: what the policy asks of the caller, such as `metrics:query`.
        run: does the work; raises ToolError, or InvalidArguments where the server itself finds fault
            with an argument only then.
        render: the result (as JSON-ready data, after obligations: in the place of any field there may
            be a mask) as a short text for a model; a list needs none, its text is a table.
        rows: the field of the result that holds the list, where the result is a list; its arguments
            then derive from `ListArguments` and the result from `ListResult`.
        columns: the fields of a row that the table shows.
        widths: the most characters of a cell of a column, where it needs more than others.
        below: lines of a list's text below its table, whatever fields are chosen.
        told_by: of a field or a label of the result: which others tell its value as well, and are masked
            with it.
        source: where text in the result comes from, such as `Kubernetes`; it is marked as untrusted.
        read_only, destructive, idempotent: the hints of the MCP specification; they must be true.
        canonical: puts a name in the place of what stands for it, such as the default cluster's, so that
            the policy judges what is executed.
        find_out: of a tool that changes something, how a caller learns whether a change was made that
            gave no answer, such as `look at the replicas`.
        dry_run: of a tool that changes something: the argument with which it changes nothing.
        timeout_s: the deadline of one call in seconds, which an obligation may shorten.
    """

    name: str
    title: str
    description: str
    permission: str
    arguments: type[ArgumentsT]
    result: type[ResultT]
    run: Callable[[ArgumentsT, ToolContext], Awaitable[ResultT]]
    read_only: bool
    source: str
    render: Callable[[Mapping[str, Any]], str] | None = None
    rows: str | None = None
    columns: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    below: Callable[[Mapping[str, Any]], Iterable[str]] = _nothing
    told_by: Mapping[str, Iterable[str]] = field(default_factory=dict)
    destructive: bool = False
    idempotent: bool = True
    canonical: Callable[[ArgumentsT], ArgumentsT] = _as_they_are
    find_out: str = ""
    dry_run: str | None = None
    scope: Scope = field(default_factory=Scope)
    timeout_s: float = 15.0

    def __post_init__(self) -> None:
        if self.rows is None:
            declared = self.render is not None
        else:
            declared = (
                issubclass(self.arguments, ListArguments)
                and issubclass(self.result, ListResult)
                and {*self.columns, *self.widths} <= set(self.row_fields)
                and (self.render is not None or bool(self.columns))
            )
        if not declared:
            raise TypeError(f"{self.name}: the declaration of its result is not complete")
        if not self.read_only and not self.find_out:
            raise TypeError(f"{self.name}: it changes something and does not say how to find out")

    @cached_property
    def row_fields(self) -> tuple[str, ...]:
        """The names of the fields of one row of a list."""
        if self.rows is None:
            return ()
        (row,) = get_args(self.result.model_fields[self.rows].annotation)
        return tuple(row.model_fields)

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
        return argument_schema(self.arguments)

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the structured result; of a list's rows it has the names of their fields.

        Their types would not hold: `fields` leaves fields out, an obligation puts a mask in the place
        of a number. And they cost more than all else of a tool together.
        """
        schema = result_schema(self.result)
        if self.rows is not None:
            names = ", ".join(self.row_fields)
            schema["properties"][self.rows]["items"] = {"type": "object", "description": names}
            if "$ref" not in str(schema["properties"]):
                schema.pop("$defs", None)
        return schema

    @cached_property
    def whole_output_schema(self) -> dict[str, Any]:
        """JSON Schema of the result as it is before obligations and without chosen `fields`.

        It has the types of a list's rows, too. For documents and tests: `output_schema` is what
        clients get.
        """
        return result_schema(self.result, whole=True)

    def parse(self, arguments: Mapping[str, Any]) -> ArgumentsT:
        """Check raw arguments and return them typed, with defaults filled in.

        Raises:
            InvalidArguments: naming each fault, and the known arguments where one is unknown.
        """
        parsed = self.canonical(validated(self.arguments, arguments))
        if isinstance(parsed, ListArguments) and parsed.fields is not None:
            if not parsed.fields:
                raise InvalidArguments(f"fields: empty; known fields: {', '.join(self.row_fields)}")
            unknown = [name for name in parsed.fields if name not in self.row_fields]
            if unknown:
                known = ", ".join(self.row_fields)
                raise InvalidArguments(
                    f"fields: unknown field {unknown[0][:64]!r}; known fields: {known}"
                )
        return parsed

    def hidden(self, names: Set[str]) -> frozenset[str]:
        """Return all fields and labels that are masked where the policy masks `names`."""
        return hidden_with(names, self.told_by)

    def changes(self, arguments: ArgumentsT) -> bool:
        """Tell whether a call with these arguments may change something."""
        tried = self.dry_run is not None and bool(getattr(arguments, self.dry_run))
        return not self.read_only and not tried

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
