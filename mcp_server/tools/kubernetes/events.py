"""Events of the objects in a cluster, the newest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from mcp_server.redaction import redact_text
from mcp_server.tools.catalog import Scope, Tool, ToolContext
from mcp_server.tools.cursor import Cursor, fingerprint
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.kinds import kind_of
from mcp_server.tools.kubernetes.model import Event, EventArguments, Events
from mcp_server.tools.kubernetes.reading import age
from mcp_server.tools.offload import offload
from mcp_server.tools.text import truncate_middle

__all__ = ["EventReader"]

_PAGE = 500
_MOST_READ = 5000
_MAX_MESSAGE = 500
# Of what `offload` counts: its message is searched for secrets.
_COST_OF_AN_EVENT = 10


class _After(Cursor):
    """The last event that was shown. Newer ones that come in between move no page.

    Attributes:
        time: when it happened last, RFC 3339 in UTC with microseconds, so that texts sort as times.
        uid: tells apart events of the same time.
    """

    time: Annotated[str, Field(max_length=40)]
    uid: Annotated[str, Field(max_length=64)]


class EventReader:
    """The tool `k8s:get_events`.

    Args:
        most_read: once so many events are read, and there are more, the answer is of these.
    """

    def __init__(self, clusters: Clusters, *, most_read: int = _MOST_READ) -> None:
        self._clusters = clusters
        self._most_read = most_read

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declaration."""
        return [
            Tool(
                name="k8s:get_events",
                title="Get events",
                description="List events, newest first: why pods fail or restart.",
                permission="k8s:get",
                arguments=EventArguments,
                result=Events,
                run=self._get_events,
                read_only=True,
                source="Kubernetes",
                rows="events",
                columns=tuple(Event.model_fields),
                widths={"message": _MAX_MESSAGE},
                footer=lambda result: [f"note: {result['note']}"] if result["note"] else [],
                scope=Scope(
                    namespace="namespace", cluster="cluster", all_namespaces="all_namespaces"
                ),
            )
        ]

    async def _get_events(self, arguments: EventArguments, context: ToolContext) -> Events:
        if arguments.kind is not None:
            cluster = self._clusters.find(arguments.cluster, context)
            kind = await kind_of(arguments.kind, cluster, context)
            arguments = arguments.model_copy(update={"kind": kind})
        listed = fingerprint(
            "events",
            self._clusters.find(arguments.cluster, context).name,
            arguments.place,
            arguments.kind,
            arguments.name,
            arguments.type,
        )
        after = None if arguments.cursor is None else _After.decode(arguments.cursor, listed)
        # The API server lists by name alone: what is newest is known only of all.
        items, all_read = await self._read(arguments, context)
        with self._clusters.find(arguments.cluster, context).parsing():
            found = await offload(len(items), _newest_first, items)
            rest = [
                event for event in found if after is None or event[:2] < (after.time, after.uid)
            ]
            shown = rest[: context.at_most(arguments.limit)]
            events = await offload(len(shown) * _COST_OF_AN_EVENT, _events, shown, context)

        def cursor_after(rows: int) -> str:
            time, uid, _ = shown[rows - 1]
            return _After(query=listed, time=time, uid=uid).encode()

        more = len(rest) > len(shown)
        return Events(
            events=events,
            total=len(found) if all_read else None,
            truncated=more or not all_read,
            next_cursor=cursor_after(len(shown)) if more and shown else None,
            note=None if all_read else _not_all(len(found), arguments),
        ).with_cursor(cursor_after)

    async def _read(
        self, arguments: EventArguments, context: ToolContext
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return the events that are read, in the order of their names, and whether these are all."""
        cluster = self._clusters.find(arguments.cluster, context)
        place = f"namespace {arguments.place}" if arguments.place else "all namespaces"
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
                "/api/v1/namespaces/{namespace}/events" if arguments.place else "/api/v1/events",
                {"namespace": arguments.place} if arguments.place else {},
                context,
                what=f"events of {place}",
                query=query,
            )
            with cluster.parsing():
                items += document["items"]
                token = document["metadata"].get("continue")
            if not token or len(items) >= self._most_read:
                return items, not token
            query["continue"] = token


def _events(shown: Iterable[tuple[str, str, dict[str, Any]]], context: ToolContext) -> list[Event]:
    now = datetime.now(UTC)
    return [_event_of(item, time, now, context) for time, _, item in shown]


def _newest_first(
    items: Iterable[dict[str, Any]],
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return when each event happened last, its uid and the event."""
    return sorted(
        ((_last_seen(item), str(item["metadata"]["uid"]), item) for item in items),
        key=lambda event: event[:2],
        reverse=True,
    )


def _not_all(read: int, arguments: EventArguments) -> str:
    """Return what is missing where there are more events than are read, and how to ask for less."""
    given = {
        "namespace": arguments.place,
        "kind": arguments.kind,
        "name": arguments.name,
        "type": arguments.type,
    }
    free = [name for name, value in given.items() if value is None]
    note = (
        f"there are more events than are read: these are the newest of {read}, which come first by "
        "the name of their object, and newer ones may be missing"
    )
    return f"{note}; ask for one {' or '.join(free)}" if free else note


def _last_seen(event: Mapping[str, Any]) -> str:
    """Return when an event happened last, whichever way its reporter told it."""
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
