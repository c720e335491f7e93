"""Declaration of tools: the source of the schemas, the documentation and the policy's catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Generic, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from mcp_server.redaction import MASK, redact_text
from mcp_server.tools.schemas import argument_schema, result_schema
from mcp_server.tools.validation import InvalidArguments, validate

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
    "expand_mask",
]


_T = TypeVar("_T")

_LONGEST_ERROR = 4000
LONGEST_CURSOR = 8192
"""Maximum characters of a cursor."""


class Arguments(BaseModel):
    """Base class of arguments: strict types, unknown names are refused.

    Equivalent JSON is normalized before validation, so that the policy judges what the tool executes:
    5.0 is the integer 5 (JSON Schema Validation 2020-12, section 6.1.1), and null for an optional
    argument means that it is omitted.
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
    """Base class of results."""

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
    """Base class of the arguments of tools that return a list.

    The server's instructions describe these arguments once for all tools.
    """

    limit: Annotated[int, Field(description="Maximum rows per page", ge=1, le=500)] = 50
    cursor: Annotated[
        str | None, Field(description="next_cursor of the previous page", max_length=LONGEST_CURSOR)
    ] = None
    fields: Annotated[
        list[str] | None, Field(description="Return only these fields of each row")
    ] = None


class ListResult(Result):
    """Base class of list results; a subclass adds the field with the rows."""

    total: int | None
    """Number of all matches, if known."""
    truncated: bool
    next_cursor: str | None = None

    _cursor_after: Callable[[int], str] | None = PrivateAttr(default=None)

    def with_cursor(self, cursor_after: Callable[[int], str]) -> Self:
        """Set the function that returns the cursor after the first n rows of this page.

        The presentation uses it if it has to drop rows to stay within the byte budget.
        """
        self._cursor_after = cursor_after
        return self

    def cursor_after(self, rows: int) -> str | None:
        """Return the cursor that continues after the first `rows` rows, or None."""
        return None if self._cursor_after is None else self._cursor_after(rows)


class ToolError(Exception):
    """The call failed; the message is for the caller and for a model to act on.

    The message may quote a backend, so it is cut at 4,000 characters. Secrets are redacted before the
    cut: a secret that is cut in two would no longer be recognized. `retryable` says that the same call
    may succeed a little later.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        if len(message) > _LONGEST_ERROR:
            message = redact_text(message)
        cut = len(message) > _LONGEST_ERROR
        super().__init__(message[:_LONGEST_ERROR] + "…" if cut else message)
        self.retryable = retryable


async def _discard_progress(_progress: float, _total: float | None, _message: str) -> None:
    """Discard progress: the caller did not request it."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The caller of a tool and the limits of the call.

    Attributes:
        user: id of the caller.
        tenant: tenant whose data the tool may access.
        groups: roles and groups of the caller, for backends that authorize by themselves.
        request_id: correlates records in other systems with the audit log.
        max_items: maximum items of any list in the result, or None.
        masked: fields and labels whose values the policy hides from the caller. Values under these names
            are masked later; a tool that puts such a value into a text uses `masked_value`.
        progress: reports progress of a long call: done, total (or None), message.
    """

    user: str
    tenant: str
    groups: tuple[str, ...] = ()
    request_id: str = ""
    max_items: int | None = None
    masked: frozenset[str] = frozenset()
    progress: Callable[[float, float | None, str], Awaitable[None]] = _discard_progress

    def masked_value(self, value: _T, *names: str) -> _T | str:
        """Return `value`, or the mask if the policy masks one of these names of fields or labels."""
        return value if self.masked.isdisjoint(names) else MASK

    def at_most(self, limit: int) -> int:
        """Return `limit`, or `max_items` if that is less."""
        return limit if self.max_items is None else min(limit, self.max_items)


@dataclass(frozen=True, slots=True)
class Scope:
    """The arguments that name the resource of a call, so that the policy can judge it.

    Attributes:
        all_namespaces: argument that requests all namespaces at once.
        cluster_wide: the call concerns the whole cluster, whatever the arguments are.
    """

    namespace: str | None = None
    cluster: str | None = None
    asset: str | None = None
    all_namespaces: str | None = None
    cluster_wide: bool = False


ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)
ResultT = TypeVar("ResultT", bound=Result)


def expand_mask(names: Set[str], revealed_by: Mapping[str, Iterable[str]]) -> frozenset[str]:
    """Return `names` and the names of all fields that reveal their values.

    Args:
        names: fields and labels that the policy masks.
        revealed_by: for a field or label, the other fields that reveal its value.
    """
    return frozenset(names).union(*(revealed_by.get(name, ()) for name in names))


def _unchanged(arguments: ArgumentsT) -> ArgumentsT:
    return arguments


def _no_footer(_document: Mapping[str, Any]) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class Tool(Generic[ArgumentsT, ResultT]):
    """Declaration of one tool.

    Attributes:
        name: name in the policy, `family:verb_noun`.
        description: short text from which a model decides when to use the tool.
        permission: permission that the policy requires, such as `metrics:query`.
        run: executes the call. Raises ToolError, or InvalidArguments if an argument turns out to be
            wrong during execution.
        render: formats the result as short text for a model. It gets JSON-ready data after
            obligations, so any field may hold a mask. Lists need none: their text is a table.
        rows: for a list, the field of the result that holds the rows. The arguments then derive from
            `ListArguments` and the result from `ListResult`.
        columns: row fields that the table shows.
        widths: maximum characters of a cell, per column that needs more than the default.
        footer: returns lines that follow the table of a list, whatever `fields` the caller selects.
        revealed_by: for a field or label of the result, the other fields that reveal its value and are
            therefore masked with it.
        source: system that the text in the result comes from, such as `Kubernetes`; the text is marked
            as untrusted.
        read_only, destructive, idempotent: annotations of the MCP specification; they must be true.
        canonicalize: fills in names that the arguments leave out, such as the default cluster, so that
            the policy judges the executed call.
        verify_hint: for a tool that changes something: how a caller finds out whether a change without
            an answer was made, such as `look at the replicas`.
        dry_run: for a tool that changes something: the argument with which it changes nothing.
        timeout_s: deadline of one call in seconds; an obligation of the policy may shorten it.
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
    footer: Callable[[Mapping[str, Any]], Iterable[str]] = _no_footer
    revealed_by: Mapping[str, Iterable[str]] = field(default_factory=dict)
    destructive: bool = False
    idempotent: bool = True
    canonicalize: Callable[[ArgumentsT], ArgumentsT] = _unchanged
    verify_hint: str = ""
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
            raise TypeError(f"{self.name}: the declaration of its result is incomplete")
        if not self.read_only and not self.verify_hint:
            raise TypeError(f"{self.name}: a tool that changes something needs a verify_hint")

    @cached_property
    def row_fields(self) -> tuple[str, ...]:
        """Field names of a row of a list."""
        if self.rows is None:
            return ()
        (row,) = get_args(self.result.model_fields[self.rows].annotation)
        return tuple(row.model_fields)

    @property
    def family(self) -> str:
        """Part of the name before the colon, such as `monitoring`."""
        return self.name.partition(":")[0]

    @cached_property
    def wire_name(self) -> str:
        """Name that clients use: letters, digits, `_` and `-` only."""
        return self.name.replace(":", "_")

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        schema = argument_schema(self.arguments)
        if self.rows is not None:
            schema["properties"]["fields"]["items"] = {"enum": list(self.row_fields)}
        return schema

    @cached_property
    def result_schema(self) -> dict[str, Any]:
        """JSON Schema of the result before obligations and before `fields` selects fields.

        It is no `outputSchema` of MCP, to which results must conform (MCP 2025-11-25, server/tools):
        the policy may mask any field, and a caller may leave fields out.
        """
        return result_schema(self.result)

    def parse(self, arguments: Mapping[str, Any]) -> ArgumentsT:
        """Validate raw arguments and return them typed, with defaults filled in.

        Raises:
            InvalidArguments: names each error, and the known arguments if one is unknown.
        """
        parsed = self.canonicalize(validate(self.arguments, arguments))
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

    def masked_names(self, names: Set[str]) -> frozenset[str]:
        """Return the fields and labels to mask if the policy masks `names`."""
        return expand_mask(names, self.revealed_by)

    def changes(self, arguments: ArgumentsT) -> bool:
        """Return whether a call with these arguments may change something."""
        tried = self.dry_run is not None and bool(getattr(arguments, self.dry_run))
        return not self.read_only and not tried

    def properties(self, arguments: ArgumentsT) -> dict[str, Any]:
        """Return the properties of the resource for the policy: namespace, cluster, asset."""
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
    """All tools of one server, by policy name and by wire name."""

    def __init__(self, tools: Iterable[Tool[Any, Any]]) -> None:
        self.tools: tuple[Tool[Any, Any], ...] = tuple(sorted(tools, key=lambda tool: tool.name))
        self._by_wire_name = {tool.wire_name: tool for tool in self.tools}
        if len(self._by_wire_name) != len(self.tools):
            raise ValueError("two tools have the same wire name")

    def __iter__(self) -> Iterator[Tool[Any, Any]]:
        return iter(self.tools)

    def __len__(self) -> int:
        return len(self.tools)

    def find(self, wire_name: str) -> Tool[Any, Any] | None:
        """Return the tool with this wire name, or None."""
        return self._by_wire_name.get(wire_name)
