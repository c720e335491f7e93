"""A small CMDB service, written from docs/cmdb-rest.md and from nothing else.

It keeps everything in memory. It shows that the contract can be served and that our client keeps to
it; it does not show how any particular product behaves.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from aiohttp import web

__all__ = ["ReferenceCmdb"]

_STATUSES = ("active", "inactive", "maintenance")
_MOST_NODES = 10_000


@dataclass
class _Tenant:
    assets: dict[str, dict[str, Any]] = field(default_factory=dict)
    relations: set[tuple[str, str, str]] = field(default_factory=set)
    changes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ReferenceCmdb:
    """The service; `running` gives its URL.

    Args:
        key: the bearer key it accepts.

    Attributes:
        interfere: when set, gets each request and the answer that would be sent, and returns what is
            sent instead; this is how tests make it break the contract.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.interfere: Callable[[web.Request, web.Response], Awaitable[web.Response]] | None = None
        self.requests: list[web.Request] = []
        self._tenants: dict[str, _Tenant] = {}
        self._next_change = 1
        self._port = 0

    def put(
        self,
        tenant: str,
        assets: Iterable[Mapping[str, Any]],
        relations: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        """Enter assets and relations (from, to, type)."""
        data = self._tenants.setdefault(tenant, _Tenant())
        now = datetime.now(UTC).isoformat()
        for asset in assets:
            blank = {"ip_address": None, "owner": None, "status": "active"}
            data.assets[asset["id"]] = {**blank, "last_updated": now, "version": 1, **asset}
        data.relations.update(relations)

    def record(self, tenant: str, asset_id: str, time: datetime, reason: str) -> None:
        """Enter a record of the past."""
        self._record(
            tenant, asset_id, time=time, user="past", reason=reason, request_id="", sides=({}, {})
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve on loopback, each time on the same port, for the length of the block."""
        app = web.Application(middlewares=[self._edge])
        # Without a pattern, aiohttp lets no braces into a parameter.
        app.add_routes(
            [
                web.get("/api/v1/assets", self._list),
                web.get("/api/v1/assets/{id:[^/]+}", self._get),
                web.patch("/api/v1/assets/{id:[^/]+}", self._patch),
                web.get("/api/v1/assets/{id:[^/]+}/changes", self._changes),
                web.get("/api/v1/topology/{service:[^/]+}", self._topology),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True)
            await site.start()
            self._port = runner.addresses[0][1]
            yield f"http://127.0.0.1:{self._port}"
        finally:
            await runner.cleanup()

    @web.middleware
    async def _edge(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(request)
        try:
            if request.headers.get("Authorization") != f"Bearer {self.key}":
                raise _Refusal(401, "unauthorized", "the bearer key is missing or wrong")
            if not request.headers.get("X-Tenant"):
                raise _Refusal(400, "invalid", "X-Tenant is missing")
            answer = await handler(request)
        except _Refusal as refusal:
            body = {"error": {"code": refusal.code, "message": str(refusal)}}
            answer = web.json_response(body, status=refusal.status)
        if self.interfere is not None and isinstance(answer, web.Response):
            return await self.interfere(request, answer)
        return answer

    async def _list(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        limit = _number(query.pop("limit", "100"), "limit", 1, 1000)
        after = query.pop("after", "")
        tests: dict[str, Callable[[dict[str, Any], str], bool]] = {
            "asset_type": lambda asset, value: asset["type"] == value,
            "environment": lambda asset, value: asset["environment"] == value,
            "status": lambda asset, value: asset["status"] == value,
            "owner": lambda asset, value: asset["owner"] == value,
            "name_prefix": lambda asset, value: asset["name"].startswith(value),
            "id_prefix": lambda asset, value: asset["id"].startswith(value),
        }
        for name in query:
            if name not in tests:
                raise _Refusal(400, "invalid", f"unknown parameter {name}")
        matching = [
            asset
            for _, asset in sorted(self._data(request).assets.items())
            if all(tests[name](asset, value) for name, value in query.items())
        ]
        rest = [asset for asset in matching if asset["id"] > after]
        return _json(
            request, {"items": rest[:limit], "total": len(matching), "more": len(rest) > limit}
        )

    async def _get(self, request: web.Request) -> web.Response:
        return _json(request, {"asset": self._asset(request)})

    async def _patch(self, request: web.Request) -> web.Response:
        body = await request.json()  # nothing is awaited from here on: check and change are one
        asset = self._asset(request)
        if body["status"] not in _STATUSES:
            raise _Refusal(422, "invalid", "status must be one of " + ", ".join(_STATUSES))
        wanted = request.headers.get("If-Match")
        if (wanted is not None and wanted != f'"{asset["version"]}"') or (
            body.get("expected_status", asset["status"]) != asset["status"]
        ):
            return _json(request, {"asset": asset}, status=412)
        before = dict(asset)
        if body["status"] == asset["status"]:
            return _json(request, {"before": before, "after": before, "change_id": None})
        now = datetime.now(UTC)
        asset |= {
            "status": body["status"],
            "version": asset["version"] + 1,
            "last_updated": now.isoformat(),
        }
        change_id = self._record(
            _tenant(request),
            asset["id"],
            time=now,
            user=body["user"],
            reason=body["reason"],
            request_id=body["request_id"],
            sides=(before, dict(asset)),
        )
        return _json(request, {"before": before, "after": asset, "change_id": change_id})

    async def _changes(self, request: web.Request) -> web.Response:
        data, asset_id = self._data(request), request.match_info["id"]
        if asset_id not in data.assets and asset_id not in data.changes:
            raise _Refusal(404, "not_found", "no such asset")
        limit = _number(request.query.get("limit", "100"), "limit", 1, 1000)
        since = datetime.fromisoformat(request.query["since"])
        before = int(request.query.get("before", str(2**63)))
        recent = [
            change
            for change in reversed(data.changes.get(asset_id, []))
            if datetime.fromisoformat(change["time"]) >= since
        ]
        rest = [change for change in recent if change["id"] < before]
        return _json(
            request, {"items": rest[:limit], "total": len(recent), "more": len(rest) > limit}
        )

    async def _topology(self, request: web.Request) -> web.Response:
        data, service = self._data(request), request.match_info["service"]
        direction = request.query.get("direction", "both")
        depth = _number(request.query.get("depth", "3"), "depth", 1, 20)
        most = _number(request.query.get("max_nodes", "100"), "max_nodes", 1, _MOST_NODES)
        roots = [service] if service in data.assets else _named(data, service)
        if not roots:
            raise _Refusal(404, "not_found", "no such service")
        down: dict[str, list[str]] = {}
        up: dict[str, list[str]] = {}
        for origin, target, _ in data.relations:
            down.setdefault(origin, []).append(target)
            up.setdefault(target, []).append(origin)
        ways = {"down": [down], "up": [up], "both": [down, up]}[direction]
        found = dict.fromkeys(roots, 0)
        for way in ways:
            for node, distance in _walk(roots, way, depth).items():
                found[node] = min(distance, found.get(node, distance))
        order = sorted(found, key=lambda node: (found[node], node))
        shown = order[:most]
        ids = set(shown)
        return _json(
            request,
            {
                "nodes": [
                    {name: data.assets[node][name] for name in ("id", "name", "type", "status")}
                    | {"depth": found[node]}
                    for node in shown
                ],
                "edges": [
                    {"from": origin, "to": target, "type": kind}
                    for origin, target, kind in sorted(data.relations)
                    if origin in ids and target in ids
                ],
                "total": len(found) if len(found) <= _MOST_NODES else None,
            },
        )

    def _record(
        self,
        tenant: str,
        asset_id: str,
        *,
        time: datetime,
        user: str,
        reason: str,
        request_id: str,
        sides: tuple[dict[str, Any], dict[str, Any]],
    ) -> int:
        change_id, self._next_change = self._next_change, self._next_change + 1
        self._tenants[tenant].changes.setdefault(asset_id, []).append(
            {
                "id": change_id,
                "time": time.isoformat(),
                "user": user,
                "reason": reason,
                "request_id": request_id,
                "before": sides[0],
                "after": sides[1],
            }
        )
        return change_id

    def _data(self, request: web.Request) -> _Tenant:
        return self._tenants.get(_tenant(request), _Tenant())

    def _asset(self, request: web.Request) -> dict[str, Any]:
        asset = self._data(request).assets.get(request.match_info["id"])
        if asset is None:
            raise _Refusal(404, "not_found", "no such asset")
        return asset


def _tenant(request: web.Request) -> str:
    return unquote(request.headers["X-Tenant"])


def _json(request: web.Request, body: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response({"tenant": _tenant(request), **body}, status=status)


def _number(text: str, name: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise _Refusal(400, "invalid", f"{name} must be a number from {least} to {most}")
    return int(text)


def _named(data: _Tenant, name: str) -> list[str]:
    return [asset["id"] for asset in data.assets.values() if asset["name"] == name]


def _walk(roots: list[str], way: dict[str, list[str]], depth: int) -> dict[str, int]:
    distance = dict.fromkeys(roots, 0)
    level = roots
    for step in range(1, depth + 1):
        following = {target for node in level for target in way.get(node, ())}
        level = [node for node in following if node not in distance]
        distance |= dict.fromkeys(level, step)
    return distance
