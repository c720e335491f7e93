"""A client that never stops calling: what its calls met while something was changed."""

from __future__ import annotations

import asyncio
import itertools
import time
from types import TracebackType
from typing import Any, Self

import httpx2

from tests.deploy.installation import Installation
from tests.integration.nodes import rpc

__all__ = ["Traffic"]

_USERS = 30


class Traffic:
    """Calls at a steady rate until the block ends; `async with Traffic(installation) as traffic`.

    One of `charged_every` calls is charged to the limits and the others are not, so that a long test
    stays within the limit of all users together.

    Attributes:
        answered: how many calls got what they asked for.
        faults: what the others got.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        per_second: float = 8,
        clients: int = 4,
        charged_every: int = 3,
    ) -> None:
        self._installation = installation
        self._pause_s = clients / per_second
        self._clients = clients
        self._charged_every = charged_every
        self._tasks: list[asyncio.Task[None]] = []
        self._going = True
        self.answered = 0
        self.faults: list[str] = []
        self.slowest_s = 0.0

    async def __aenter__(self) -> Self:
        tokens = [self._installation.token(f"traffic-{time.time_ns()}") for _ in range(_USERS)]
        self._tasks = [
            asyncio.create_task(self._run(tokens[number :: self._clients]))
            for number in range(self._clients)
        ]
        await self.more(self._clients)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)

    async def more(self, calls: int, deadline_s: float = 180) -> None:
        """Wait until so many more calls were made."""
        until = time.monotonic() + deadline_s
        wanted = self.answered + len(self.faults) + calls
        while self.answered + len(self.faults) < wanted:
            assert time.monotonic() < until, f"no calls in {deadline_s} s; {self.faults}"
            await asyncio.sleep(0.05)

    async def _run(self, tokens: list[str]) -> None:
        async with self._installation.http() as http:
            for number, token in enumerate(itertools.cycle(tokens)):
                if not self._going:
                    return
                started = time.monotonic()
                message = _CALL if number % self._charged_every == 0 else _LIST
                fault = await _fault(http, token, message)
                took = time.monotonic() - started
                self.slowest_s = max(self.slowest_s, took)
                if fault:
                    self.faults.append(f"{time.strftime('%H:%M:%S')} {message['method']}: {fault}")
                else:
                    self.answered += 1
                await asyncio.sleep(max(self._pause_s - took, 0))


_LIST: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
_CALL: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "cmdb_query_assets", "arguments": {"limit": 1}},
}


async def _fault(http: httpx2.AsyncClient, token: str, message: dict[str, Any]) -> str:
    """Return what was wrong with the answer, or the empty string."""
    try:
        response = await rpc(http, message, Authorization=f"Bearer {token}")
    except httpx2.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    if response.status_code != 200:
        return f"status {response.status_code}: {response.text[:300]}"
    body = response.json()
    if "error" in body or body["result"].get("isError"):
        return str(body)[:300]
    return ""
