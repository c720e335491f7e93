"""The tool `k8s:get_pod_logs`: the end of a container's log, with bounded memory and time."""

from __future__ import annotations

import asyncio
import collections
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from mcp_server.redaction import LineRedactor
from mcp_server.tools.catalog import Arguments, Result, Tool, ToolContext, ToolError
from mcp_server.tools.deadline import remaining
from mcp_server.tools.kubernetes.arguments import (
    IN_ONE_NAMESPACE,
    ClusterName,
    Name,
    Namespace,
)
from mcp_server.tools.kubernetes.cluster import Cluster
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.offload import offload

__all__ = ["pod_logs"]

_MAX_TEXT = 28 * 1024
"""Maximum bytes of log text in a response, which holds it twice: structured and as text."""
_MAX_BYTES = 8 * 1024 * 1024
_MAX_SEARCHED_LINES = 10_000
_MAX_LINE_BYTES = 64 * 1024
_MAX_LINE_SHOWN = 4096
_AT_ONCE_BYTES = 64 * 1024
_DEADLINE_S = 20.0
# Bytes of short lines per item of `offload`.
_COST_BYTES = 16
# Terminal escape sequences (ECMA-48): control sequences such as colours, control strings such as window
# titles, and others. Within a word they would hide it from `grep` and from a reader.
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-~]"
)


class LogArguments(Arguments):
    """Arguments of `get_pod_logs`."""

    cluster: ClusterName = None
    namespace: Namespace = "default"
    pod_name: Annotated[Name, Field(description="Name of a pod")]
    container: Annotated[Name | None, Field(description="Required if the pod has several")] = None
    previous: Annotated[bool, Field(description="Of the container before its restart")] = False
    since_seconds: Annotated[
        int | None, Field(ge=1, le=30 * 86400, description="Only lines of the last seconds")
    ] = None
    tail_lines: Annotated[
        int, Field(ge=1, le=2000, description="Newest lines; with grep, newest matches")
    ] = 100
    grep: Annotated[
        str | None,
        Field(min_length=1, max_length=256, description="Only lines with this text, ignoring case"),
    ] = None


class Logs(Result):
    """The end of a container's log; `note` says what is missing."""

    lines: int
    note: str | None
    text: str


def pod_logs(clusters: Clusters) -> Tool[LogArguments, Logs]:
    """Return the declaration of `k8s:get_pod_logs`."""
    return Tool(
        name="k8s:get_pod_logs",
        title="Get pod logs",
        description="Read the end of a container's log.",
        permission="k8s:get",
        arguments=LogArguments,
        result=Logs,
        run=partial(_run, clusters),
        render=_render,
        read_only=True,
        source="Kubernetes",
        scope=IN_ONE_NAMESPACE,
        canonicalize=clusters.with_default_cluster,
        timeout_s=30,
    )


async def _run(clusters: Clusters, arguments: LogArguments, context: ToolContext) -> Logs:
    cluster = clusters.find(arguments.cluster, context)
    searched = arguments.grep is not None
    asked = _MAX_SEARCHED_LINES if searched else arguments.tail_lines
    shortened = False
    given_s = remaining(_DEADLINE_S)
    try:
        async with asyncio.timeout(given_s):
            while True:
                log = await _read(cluster, arguments, context, asked)
                if log.received < _MAX_BYTES or asked == 1:
                    break
                # The API server cut the newest lines: request fewer.
                asked, shortened = max(1, min(asked - 1, log.lines // 2)), True
    except TimeoutError:
        raise ToolError(
            f"the {_log_name(arguments)} did not end within {round(given_s, 1):g} s; "
            "ask for fewer tail_lines or since_seconds",
            retryable=True,
        ) from None
    notes = []
    if (searched and log.lines >= asked) or shortened:
        notes.append(f"only the last {asked} lines were {'searched' if searched else 'read'}")
    if log.received >= _MAX_BYTES:
        notes.append("the end of the newest line is missing, it is too long")
    if log.left_out:
        notes.append(f"{log.left_out} older lines left out, the text is too long")
    if any(len(line) > _MAX_LINE_SHOWN for line in log.newest):
        notes.append(f"lines are cut at {_MAX_LINE_SHOWN} characters")
    if log.coloured:
        notes.append("colours and other escape sequences of terminals are removed")
    return Logs(lines=len(log.newest), note="; ".join(notes) or None, text="\n".join(log.newest))


@dataclass(slots=True)
class _Log:
    """The newest matching lines of a log that fit a response.

    Attributes:
        most: maximum lines to keep.
        wanted: text that a line must contain, casefolded. The search runs on redacted lines: otherwise
            a caller could guess a secret letter by letter.
        received: number of bytes read.
        lines: number of lines read.
        matching: number of lines that contain `wanted`.
        coloured: whether terminal escape sequences were removed.
    """

    most: int
    wanted: str
    received: int = 0
    lines: int = 0
    matching: int = 0
    coloured: bool = False
    newest: collections.deque[str] = field(default_factory=collections.deque)
    _size: int = 0
    _rest: bytes = b""
    _redactor: LineRedactor = field(default_factory=LineRedactor)

    @property
    def left_out(self) -> int:
        """Number of requested lines that do not fit."""
        return min(self.matching, self.most) - len(self.newest)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self.received += len(piece)
        *whole, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[:_MAX_LINE_BYTES]
        for line in whole:
            self._take(line)

    def end(self) -> None:
        """Process the text after the last line break."""
        if self._rest:
            self._take(self._rest)
        self._keep(self._redactor.rest())

    def _take(self, line: bytes) -> None:
        self.lines += 1
        text = line[:_MAX_LINE_BYTES].decode(errors="replace").rstrip("\r")
        without_colours = _ESCAPE_SEQUENCE.sub("", text)
        self.coloured |= without_colours != text
        self._keep(self._redactor.feed(without_colours))

    def _keep(self, lines: Iterator[str]) -> None:
        for line in lines:
            if self.wanted not in line.casefold():
                continue
            self.matching += 1
            shown = line if len(line) <= _MAX_LINE_SHOWN else line[:_MAX_LINE_SHOWN] + "…"
            self.newest.append(shown)
            self._size += _bytes(shown)
            while len(self.newest) > self.most or self._size > _MAX_TEXT:
                self._size -= _bytes(self.newest.popleft())


async def _read(
    cluster: Cluster, arguments: LogArguments, context: ToolContext, lines: int
) -> _Log:
    """Read the last `lines` lines; beyond 8 MiB the newest of them are missing."""
    query = {"tailLines": str(lines), "limitBytes": str(_MAX_BYTES)}
    if arguments.container is not None:
        query["container"] = arguments.container
    if arguments.previous:
        query["previous"] = "true"
    if arguments.since_seconds is not None:
        query["sinceSeconds"] = str(arguments.since_seconds)
    log = _Log(most=arguments.tail_lines, wanted=(arguments.grep or "").casefold())
    async with cluster.stream(
        "/api/v1/namespaces/{namespace}/pods/{name}/log",
        {"namespace": arguments.namespace, "name": arguments.pod_name},
        context,
        what=_log_name(arguments),
        query=query,
        of_node=True,
    ) as stream:
        async for piece in stream.iter_chunked(_AT_ONCE_BYTES):
            await offload(len(piece) // _COST_BYTES, log.feed, piece)
            # Buffered chunks come without a suspension: let other tasks run.
            await asyncio.sleep(0)
    await offload(log.received // _COST_BYTES, log.end)
    return log


def _log_name(arguments: LogArguments) -> str:
    return f"log of pod {arguments.pod_name} in namespace {arguments.namespace}"


def _bytes(line: str) -> int:
    return len(json.dumps(line, ensure_ascii=False).encode())


def _render(result: Mapping[str, Any]) -> str:
    text = result["text"] or "No lines."
    return f"{text}\n({result['note']})" if result["note"] else text
