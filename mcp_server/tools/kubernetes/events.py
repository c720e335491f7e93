"""The tool `k8s:get_events`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_server.redaction import redact_text
from mcp_server.tools.catalog import ListResult, Result, Tool, ToolContext
from mcp_server.tools.cursor import Cursor, CursorCipher, fingerprint
from mcp_server.tools.kubernetes.age import age
from mcp_server.tools.kubernetes.arguments import IN_NAMESPACES, Name, NamespacedListArguments
from mcp_server.tools.kubernetes.cluster import Cluster
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.kind_names import kind_of
from mcp_server.tools.offload import offload
from mcp_server.tools.text import truncate_middle
from mcp_server.tools.validation import TextFormat

__all__ = ["events_tool"]

_PAGE = 500
_MAX_READ = 5000
_MAX_MESSAGE = 500
# In items of `offload`: the message is searched for secrets.
_COST_OF_AN_EVENT = 10


class EventArguments(NamespacedListArguments):
    """Arguments of `get_events`."""

    kind: Annotated[
        Annotated[
            str,
            TextFormat(
                r"^[A-Za-z][A-Za-z0-9-]{0,62}$",
                "must be a kind, its plural or its short name, such as Pod",
            ),
        ]
        | None,
        Field(description="Kind of the object", examples=["Pod", "po"]),
    ] = None
    name: Annotated[Name | None, Field(description="Name of the object")] = None
    type: Annotated[
        Literal["Warning", "Normal"] | None, Field(description="Only events of this type")
    ] = None


class Event(Result):
    """An event of an object, and how often it happened; `age` counts from the last time."""

    age: str
    type: str
    reason: str
    object: str
    namespace: str
    count: int
    message: str


class Events(ListResult):
    """Events, newest first; `note` says if not all of them were read."""

    events: list[Event]
    note: str | None = None


class _After(Cursor):
    """The last event of a page. Newer events that arrive later move no page.

    Attributes:
        time: its last occurrence, RFC 3339 in UTC with microseconds, so that texts sort as times.
        uid: distinguishes events of the same time.
    """

    time: Annotated[str, Field(max_length=40)]
    uid: Annotated[str, Field(max_length=64)]


def events_tool(
    clusters: Clusters, cipher: CursorCipher, *, max_read: int = _MAX_READ
) -> Tool[EventArguments, Events]:
    """Return the declaration of `k8s:get_events`.

    Args:
        max_read: maximum events that one call reads.
    """
    return Tool(
        name="k8s:get_events",
        title="Get events",
        description="List events, newest first: why pods fail or restart.",
        permission="k8s:get",
        arguments=EventArguments,
        result=Events,
        run=partial(_run, clusters, cipher, max_read),
        read_only=True,
        source="Kubernetes",
        rows="events",
        columns=tuple(Event.model_fields),
        widths={"message": _MAX_MESSAGE},
        footer=lambda result: [f"note: {result['note']}"] if result["note"] else [],
        scope=IN_NAMESPACES,
        canonicalize=clusters.with_default_cluster,
    )


async def _run(
    clusters: Clusters,
    cipher: CursorCipher,
    max_read: int,
    arguments: EventArguments,
    context: ToolContext,
) -> Events:
    cluster = clusters.find(arguments.cluster, context)
    if arguments.kind is not None:
        kind = await kind_of(arguments.kind, cluster, context)
        arguments = arguments.model_copy(update={"kind": kind})
    listed = fingerprint(
        "events",
        cluster.name,
        arguments.selected_namespace,
        arguments.kind,
        arguments.name,
        arguments.type,
    )
    after = None if arguments.cursor is None else _After.decode(cipher, arguments.cursor, listed)
    # The API server sorts by name only: the newest events are known once all are read.
    items, all_read = await _read(cluster, arguments, context, max_read=max_read)
    with cluster.parsing():
        found = await offload(len(items), _newest_first, items)
        rest = [event for event in found if after is None or event[:2] < (after.time, after.uid)]
        shown = rest[: context.at_most(arguments.limit)]
        events = await offload(len(shown) * _COST_OF_AN_EVENT, _events, shown, context)

    def cursor_after(rows: int) -> str:
        time, uid, _ = shown[rows - 1]
        return _After(query=listed, time=time, uid=uid).encode(cipher)

    more = len(rest) > len(shown)
    return Events(
        events=events,
        total=len(found) if all_read else None,
        truncated=more or not all_read,
        next_cursor=cursor_after(len(shown)) if more and shown else None,
        note=None if all_read else _not_all(len(found), arguments),
    ).with_cursor(cursor_after)


async def _read(
    cluster: Cluster, arguments: EventArguments, context: ToolContext, *, max_read: int
) -> tuple[list[dict[str, Any]], bool]:
    """Return events in the order of their names, and whether these are all."""
    namespace = arguments.selected_namespace
    selected = {
        "involvedObject.kind": arguments.kind,
        "involvedObject.name": arguments.name,
        "type": arguments.type,
    }
    query = {
        "limit": str(_PAGE),
        "fieldSelector": ",".join(f"{key}={value}" for key, value in selected.items() if value),
    }
    items: list[dict[str, Any]] = []
    while True:
        document = await cluster.get(
            "/api/v1/namespaces/{namespace}/events" if namespace else "/api/v1/events",
            {"namespace": namespace} if namespace else {},
            context,
            what="events of " + (f"namespace {namespace}" if namespace else "all namespaces"),
            query=query,
        )
        with cluster.parsing():
            items += document["items"]
            token = document["metadata"].get("continue")
        if not token or len(items) >= max_read:
            return items, not token
        query["continue"] = token


def _events(shown: Iterable[tuple[str, str, dict[str, Any]]], context: ToolContext) -> list[Event]:
    now = datetime.now(UTC)
    return [_event_of(item, time, now, context) for time, _, item in shown]


def _newest_first(
    items: Iterable[dict[str, Any]],
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the last time, the uid and the event, of each event."""
    return sorted(
        ((_last_seen(item), str(item["metadata"]["uid"]), item) for item in items),
        key=lambda event: event[:2],
        reverse=True,
    )


def _not_all(read: int, arguments: EventArguments) -> str:
    """Return a note that not all events were read, and how to narrow the list."""
    given = {
        "namespace": arguments.selected_namespace,
        "kind": arguments.kind,
        "name": arguments.name,
        "type": arguments.type,
    }
    free = [name for name, value in given.items() if value is None]
    note = (
        f"not all events were read: these are the newest of the first {read} in the order of their "
        "names, and newer ones may be missing"
    )
    return f"{note}; give a {' or '.join(free)}" if free else note


def _last_seen(event: Mapping[str, Any]) -> str:
    """Return the time of an event's last occurrence, whichever API version its reporter used."""
    text = (
        (event.get("series") or {}).get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds")


def _event_of(
    event: Mapping[str, Any], last_seen: str, now: datetime, context: ToolContext
) -> Event:
    about = event["involvedObject"]
    kind = context.masked_value(about.get("kind", ""), "kind")
    name = context.masked_value(about.get("name", ""), "name")
    return Event(
        age=age(last_seen, now),
        type=event.get("type") or "",
        reason=event.get("reason") or "",
        object=f"{kind}/{name}",
        namespace=event["metadata"]["namespace"],
        count=(event.get("series") or {}).get("count") or event.get("count") or 1,
        message=truncate_middle(redact_text(event.get("message") or ""), _MAX_MESSAGE),
    )
