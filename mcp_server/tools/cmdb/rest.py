"""An existing CMDB that implements the HTTP contract of docs/cmdb-rest.md.

Every response is checked. A response is refused if it violates the contract, belongs to another tenant,
or is about another asset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from mcp_server.redaction import redact_text
from mcp_server.settings import CmdbSettings
from mcp_server.tools.backend import HttpBackend, OutcomeUnknown
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.cmdb.backend import NAME, VERIFY_HINT, AssetChanged, AssetNotFound
from mcp_server.tools.cmdb.model import (
    Asset,
    AssetPage,
    AssetQuery,
    ChangePage,
    Direction,
    StatusChange,
    StatusChanged,
    Topology,
)
from mcp_server.tools.text import truncate_middle

__all__ = ["RestCmdb"]

_API = "/api/v1"
_MESSAGE_LIMIT = 200


class _Tenanted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    tenant: str


class _AssetAnswer(_Tenanted):
    asset: Asset


class _AssetPageAnswer(_Tenanted, AssetPage):
    pass


class _TopologyAnswer(_Tenanted, Topology):
    pass


class _StatusAnswer(_Tenanted, StatusChanged):
    pass


class _ChangePageAnswer(_Tenanted, ChangePage):
    pass


class _BrokenAnswer(ToolError):
    """A response violates the contract or does not belong to the request."""

    def __init__(self, fault: str) -> None:
        self.why = f"gave an answer that its contract does not allow, which was refused: {fault}"
        super().__init__(f"the {NAME} {self.why}")


_AnswerT = TypeVar("_AnswerT", bound=_Tenanted)


class RestCmdb:
    """A `CmdbBackend` over HTTP.

    Args:
        settings: settings with the backend `rest`.
    """

    def __init__(self, settings: CmdbSettings) -> None:
        self._http = HttpBackend(
            NAME,
            str(settings.api_url),
            ca=settings.ca,
            bearer=settings.key,
            timeout_s=settings.timeout_s,
        )

    async def start(self) -> None:
        """See `CmdbBackend.start`.

        Raises:
            SettingsError: the file of the key cannot be used.
        """
        await self._http.start()

    async def stop(self) -> None:
        """See `CmdbBackend.stop`."""
        await self._http.stop()

    async def query_assets(
        self, tenant: str, query: AssetQuery, *, limit: int, after: str | None = None
    ) -> AssetPage:
        """See `CmdbBackend.query_assets`."""
        filters = query.model_dump(mode="json", exclude_none=True)
        status, body = await self._get(
            tenant, "/assets", {**filters, "limit": limit, "after": after}
        )
        page = _answer(_AssetPageAnswer, tenant, status, body)
        _require(len(page.items) <= limit, "more assets than asked for")
        return AssetPage(items=page.items, total=page.total, more=page.more and bool(page.items))

    async def get_asset(self, tenant: str, asset_id: str) -> Asset:
        """See `CmdbBackend.get_asset`."""
        status, body = await self._get(tenant, f"/assets/{_segment(asset_id)}")
        if _not_found(status, body):
            raise AssetNotFound(asset_id)
        asset = _answer(_AssetAnswer, tenant, status, body).asset
        _require(asset.id == asset_id, "another asset than asked for")
        return asset

    async def get_topology(
        self, tenant: str, service: str, *, direction: Direction, depth: int, most_nodes: int
    ) -> Topology:
        """See `CmdbBackend.get_topology`."""
        status, body = await self._get(
            tenant,
            f"/topology/{_segment(service)}",
            {"direction": direction.value, "depth": depth, "max_nodes": most_nodes},
        )
        if _not_found(status, body):
            raise AssetNotFound(service)
        found = _answer(_TopologyAnswer, tenant, status, body)
        ids = {node.id for node in found.nodes}
        _require(0 < len(found.nodes) <= most_nodes, "no assets, or more than asked for")
        _require(len(ids) == len(found.nodes), "an asset twice")
        _require(
            all(edge.origin in ids and edge.target in ids for edge in found.edges),
            "relations of assets that it did not return",
        )
        _require(found.total is None or found.total >= len(ids), "a total below what it returned")
        return Topology(nodes=found.nodes, edges=found.edges, total=found.total)

    async def update_status(
        self, tenant: str, asset_id: str, change: StatusChange
    ) -> StatusChanged:
        """See `CmdbBackend.update_status`."""
        headers = _headers(tenant)
        if change.expected_version is not None:
            headers["If-Match"] = f'"{change.expected_version}"'
        status, body = await self._http.send(
            "PATCH",
            f"{_API}/assets/{_segment(asset_id)}",
            json_body=change.model_dump(
                mode="json", exclude={"expected_version"}, exclude_none=True
            ),
            headers=headers,
            verify_hint=VERIFY_HINT,
        )
        if _not_found(status, body):
            raise AssetNotFound(asset_id)
        if status == 412:
            asset = _answer(_AssetAnswer, tenant, 200, body).asset
            _require(asset.id == asset_id, "another asset than asked for")
            raise AssetChanged(asset)
        try:
            done = _answer(_StatusAnswer, tenant, status, body)
            _require(done.before.id == asset_id == done.after.id, "another asset than asked for")
            _require(done.after.status == change.status, "another status than asked for")
        except _BrokenAnswer as error:
            if 200 <= status < 300:
                raise OutcomeUnknown(NAME, error.why, verify_hint=VERIFY_HINT) from error
            raise
        return StatusChanged(before=done.before, after=done.after, change_id=done.change_id)

    async def get_changes(
        self,
        tenant: str,
        asset_id: str,
        *,
        since: datetime,
        limit: int,
        before: int | None = None,
    ) -> ChangePage:
        """See `CmdbBackend.get_changes`."""
        status, body = await self._get(
            tenant,
            f"/assets/{_segment(asset_id)}/changes",
            {"since": since.astimezone(UTC).isoformat(), "limit": limit, "before": before},
        )
        if _not_found(status, body):
            raise AssetNotFound(asset_id)
        page = _answer(_ChangePageAnswer, tenant, status, body)
        _require(len(page.items) <= limit, "more records than asked for")
        return ChangePage(items=page.items, total=page.total, more=page.more and bool(page.items))

    async def _get(
        self, tenant: str, path: str, params: Mapping[str, object] | None = None
    ) -> tuple[int, Any]:
        given = {name: str(value) for name, value in (params or {}).items() if value is not None}
        return await self._http.get(_API + path, given, headers=_headers(tenant))


def _headers(tenant: str) -> dict[str, str]:
    # Percent-encoded: a header is ASCII, and the name of a tenant may be any text.
    return {"X-Tenant": quote(tenant, safe="")}


def _segment(text: str) -> str:
    """Return `text` as one segment of a URL path.

    Raises:
        AssetNotFound: a URL cannot contain the text as a segment (`.` and `..`, RFC 3986 section 5.2.4).
    """
    if text in (".", ".."):
        raise AssetNotFound(text)
    return quote(text, safe="")


def _answer(model: type[_AnswerT], tenant: str, status: int, body: Any) -> _AnswerT:
    """Return the validated body of a successful response.

    Raises:
        ToolError: the status is not 200, or the body violates the contract or names another tenant.
    """
    if status != 200:
        _refuse(status, body)
    try:
        # Strict JSON mode: text with digits is not accepted as a number.
        answer = model.model_validate_json(json.dumps(body), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the body"
        raise _BrokenAnswer(f"{where}: {fault['msg']}") from None
    _require(answer.tenant == tenant, "data of another tenant")
    return answer


def _not_found(status: int, body: Any) -> bool:
    """Return whether the CMDB reports that an asset is missing.

    A 404 response of a proxy means a wrong address instead.
    """
    return (
        status == 404
        and isinstance(body, dict)
        and isinstance(body.get("error"), dict)
        and body["error"].get("code") == "not_found"
    )


def _refuse(status: int, body: Any) -> NoReturn:
    if status in (401, 403):
        raise ToolError(
            f"the {NAME} refuses this server's key (HTTP {status}); an operator must check the key "
            "and what it may do"
        )
    if status in (400, 409, 422):
        raise ToolError(f"the {NAME} refuses this (HTTP {status}): {_message(body)}")
    raise _BrokenAnswer(f"HTTP {status}")


def _message(body: Any) -> str:
    try:
        text = body["error"]["message"]
    except (KeyError, TypeError):
        text = None
    if not (isinstance(text, str) and text):
        return "it gives no reason"
    return truncate_middle(redact_text(text), _MESSAGE_LIMIT)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _BrokenAnswer(otherwise)
