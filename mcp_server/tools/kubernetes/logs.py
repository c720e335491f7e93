"""The end of a container's log, of which never more than a bounded part is read or kept."""

from __future__ import annotations

import asyncio
import collections
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_server.redaction import LineRedactor
from mcp_server.tools.catalog import Scope, Tool, ToolContext, ToolError
from mcp_server.tools.deadline import remaining
from mcp_server.tools.kubernetes.cluster import Cluster
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.model import LogArguments, Logs
from mcp_server.tools.offload import offload

__all__ = ["LogReader"]

_MAX_TEXT = 28 * 1024
"""Bytes of log text in an answer, which holds it twice: for programs and for a model."""
_MAX_BYTES = 8 * 1024 * 1024
_MAX_SEARCHED_LINES = 10_000
_MAX_LINE_BYTES = 64 * 1024
_MAX_LINE_SHOWN = 4096
_AT_ONCE_BYTES = 64 * 1024
_DEADLINE_S = 20.0
# So many bytes of short lines cost one of what `offload` counts.
_COST_BYTES = 16
# What steers a terminal (ECMA-48): control sequences such as colours, strings such as titles of
# windows, and the rest. It may stand within a word, which neither `grep` nor a reader would find.
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-~]"
)


class LogReader:
    """The tool `k8s:get_pod_logs`."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declaration."""
        return [
            Tool(
                name="k8s:get_pod_logs",
                title="Get pod logs",
                description="Read the end of a container's log.",
                permission="k8s:get",
                arguments=LogArguments,
                result=Logs,
                run=self._get_pod_logs,
                render=_render,
                read_only=True,
                source="Kubernetes",
                scope=Scope(namespace="namespace", cluster="cluster"),
                timeout_s=30,
            )
        ]

    async def _get_pod_logs(self, arguments: LogArguments, context: ToolContext) -> Logs:
        cluster = self._clusters.find(arguments.cluster, context)
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
                    # What was cut off are the newest lines. Fewer of them are asked for.
                    asked, shortened = max(1, min(asked - 1, log.lines // 2)), True
        except TimeoutError:
            raise ToolError(
                f"the {_what(arguments)} did not end within {round(given_s, 1):g} s; "
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
        return Logs(
            lines=len(log.newest), note="; ".join(notes) or None, text="\n".join(log.newest)
        )


@dataclass(slots=True)
class _Log:
    """What was read of a log: the newest lines that are wanted and fit an answer.

    Attributes:
        most: the most lines that are kept.
        wanted: what a line must hold, casefolded. It is looked for in what the caller may see: whether
            a secret holds it would tell the secret, one letter after the other.
        received: bytes.
        lines: of them.
        matching: lines of them that are wanted.
        coloured: whether escape sequences of a terminal were removed.
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
        """How many lines that were asked for do not fit."""
        return min(self.matching, self.most) - len(self.newest)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self.received += len(piece)
        *whole, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[:_MAX_LINE_BYTES]
        for line in whole:
            self._take(line)

    def end(self) -> None:
        """Take what stands after the last line break."""
        if self._rest:
            self._take(self._rest)
        self._keep(self._redactor.rest())

    def _take(self, line: bytes) -> None:
        self.lines += 1
        text = line[:_MAX_LINE_BYTES].decode(errors="replace").rstrip("\r")
        plain = _ESCAPE_SEQUENCE.sub("", text)
        self.coloured |= plain != text
        self._keep(self._redactor.feed(plain))

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
    """Read the last `lines` lines; where they are larger than 8 MiB, the newest of them are missing."""
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
        what=_what(arguments),
        query=query,
        of_node=True,
    ) as stream:
        async for piece in stream.iter_chunked(_AT_ONCE_BYTES):
            await offload(len(piece) // _COST_BYTES, log.feed, piece)
            # What is there is given without a pause, and others have to have their turn.
            await asyncio.sleep(0)
    await offload(log.received // _COST_BYTES, log.end)
    return log


def _what(arguments: LogArguments) -> str:
    return f"log of pod {arguments.pod_name} in namespace {arguments.namespace}"


def _bytes(line: str) -> int:
    return len(json.dumps(line, ensure_ascii=False).encode())


def _render(result: Mapping[str, Any]) -> str:
    text = result["text"] or "No lines."
    return f"{text}\n({result['note']})" if result["note"] else text
