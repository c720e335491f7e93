"""Client of the HTTP API of Grafana: finds, reads and saves dashboards.

It uses only endpoints that are the same in Grafana 10 to 13: `/api/search`,
`/api/dashboards/uid/{uid}` and `/api/dashboards/db`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urljoin

from mcp_server.settings import GrafanaSettings
from mcp_server.tools.backend import BackendUnavailable, HttpBackend, OutcomeUnknown, parsing
from mcp_server.tools.catalog import ToolContext, ToolError

__all__ = [
    "REVEALED_BY",
    "VERIFY_HINT",
    "Folder",
    "FoundDashboard",
    "Grafana",
    "SavedDashboard",
    "StoredDashboard",
]

# The URL of a dashboard contains its uid and its title.
REVEALED_BY = {"uid": ("url",), "title": ("url",)}
VERIFY_HINT = (
    "look for its title in enterprise://monitoring/dashboards; where that is truncated, call with the "
    "same title and folder: that is refused, with the uid, if it was saved"
)
"""How a caller finds out whether a dashboard was saved."""

_PAGE = 5000
_MOST_PAGES = 10
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_MAX_MESSAGE = 500

_Kind = Literal["dash-db", "dash-folder"]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of dashboards."""

    uid: str
    title: str


@dataclass(frozen=True, slots=True)
class FoundDashboard:
    """A dashboard in a search result; `folder` is None at the root, `url` is absolute."""

    uid: str
    title: str
    folder: Folder | None
    url: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredDashboard:
    """A dashboard with its content (`model`, in Grafana's JSON); `version` counts its changes."""

    uid: str
    title: str
    folder: Folder | None
    url: str
    version: int
    tags: tuple[str, ...]
    model: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SavedDashboard:
    """Grafana's response to a saved dashboard; `url` is absolute."""

    uid: str
    url: str
    version: int


class Grafana:
    """A client of one organization of Grafana, authenticated as a service account."""

    def __init__(self, settings: GrafanaSettings) -> None:
        self._url = str(settings.url)
        self._http = HttpBackend(
            "Grafana",
            self._url,
            ca=settings.ca,
            bearer=settings.token,
            timeout_s=settings.timeout_s,
        )

    async def start(self) -> None:
        """Open the connection pool.

        Raises:
            SettingsError: the file of the token cannot be used.
        """
        await self._http.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._http.stop()

    async def folder(self, name: str, context: ToolContext) -> Folder:
        """Return the folder whose uid or title is `name`.

        Raises:
            ToolError: no folder or several folders have this name, or Grafana refused.
            BackendUnavailable: Grafana does not answer.
        """
        hits = await self._search("dash-folder")
        with parsing("Grafana"):
            folders = [Folder(hit["uid"], hit["title"]) for hit in hits]
        found = [each for each in folders if each.uid == name] or [
            each for each in folders if each.title == name
        ]
        if not found:
            raise ToolError(
                f"folder: Grafana shows no folder {name!r}; give the uid or the exact title of one"
            )
        if len(found) > 1:
            uids = context.masked_value(", ".join(sorted(each.uid for each in found)), "uid")
            raise ToolError(f"folder: several folders are called {name!r}; give a uid: {uids}")
        return found[0]

    async def find(self, title: str, folder: Folder | None) -> list[FoundDashboard]:
        """Return the dashboards with this title in this folder (None: at the root).

        Titles are compared case-insensitively, as Grafana did while it refused duplicates.

        Raises:
            ToolError: Grafana refused.
            BackendUnavailable: Grafana does not answer.
        """
        wanted = None if folder is None else folder.uid
        hits = await self._search("dash-db", query=title)
        with parsing("Grafana"):
            return [
                found
                for found in map(self._found, hits)
                if found.title.strip().casefold() == title.strip().casefold()
                and (found.folder.uid if found.folder else None) == wanted
            ]

    async def dashboards(self, most: int) -> list[FoundDashboard]:
        """Return the first `most` dashboards that the service account can read, by title.

        Raises:
            ToolError: Grafana refused.
            BackendUnavailable: Grafana does not answer.
        """
        hits = await self._search("dash-db", most=most)
        with parsing("Grafana"):
            return [self._found(hit) for hit in hits]

    async def dashboard(self, uid: str) -> StoredDashboard | None:
        """Return a dashboard with its content, or None if it does not exist.

        Raises:
            ToolError: Grafana refused.
            BackendUnavailable: Grafana does not answer.
        """
        if not _UID.fullmatch(uid):
            return None
        status, body = await self._http.get(f"/api/dashboards/uid/{uid}")
        if status == 404:
            return None
        document = _answered(status, body, dict, "read the dashboard")
        with parsing("Grafana"):
            model, meta = document["dashboard"], document["meta"]
            return StoredDashboard(
                uid=uid,
                title=model["title"],
                folder=_folder(meta),
                url=self._absolute(meta["url"]),
                version=model["version"],
                tags=tuple(model.get("tags") or ()),
                model=model,
            )

    async def save(
        self, model: Mapping[str, Any], *, folder: Folder | None, message: str
    ) -> SavedDashboard:
        """Save a dashboard; an existing one is changed only if `model` has its `uid` and `version`.

        Args:
            model: the dashboard in Grafana's JSON.
                folder: folder of the saved dashboard, which moves there if necessary; None: the root.
                message: text for the dashboard's history.

            Raises:
                ToolError: Grafana refused.
                BackendUnavailable: the request was not sent.
                OutcomeUnknown: the dashboard may have been saved.
        """
        command = {
            "dashboard": model,
            "message": message[:_MAX_MESSAGE],
            "overwrite": False,
            **({} if folder is None else {"folderUid": folder.uid}),
        }
        status, body = await self._http.send(
            "POST",
            "/api/dashboards/db",
            json_body=command,
            verify_hint=VERIFY_HINT,
        )
        if not 200 <= status < 300:
            _answered(status, body, dict, "save the dashboard")
        match body:
            case {"uid": str(uid), "url": str(url), "version": int(version)}:
                return SavedDashboard(uid, self._absolute(url), version)
        raise OutcomeUnknown("Grafana", "did not say what it saved", verify_hint=VERIFY_HINT)

    async def _search(
        self, kind: _Kind, *, query: str | None = None, most: int = _PAGE * _MOST_PAGES
    ) -> list[dict[str, Any]]:
        page = min(most, _PAGE)
        hits: list[dict[str, Any]] = []
        for number in range(1, _MOST_PAGES + 1):
            params = {"type": kind, "limit": str(page), "page": str(number)}
            if query is not None:
                params["query"] = query
            status, body = await self._http.get("/api/search", params)
            found = _answered(status, body, list, "search")
            hits += found
            if len(found) < page or len(hits) >= most:
                return hits[:most]
        raise ToolError(f"Grafana has more than {_PAGE * _MOST_PAGES} of them; too many to look at")

    def _found(self, hit: Mapping[str, Any]) -> FoundDashboard:
        return FoundDashboard(
            uid=hit["uid"],
            title=hit["title"],
            folder=_folder(hit),
            url=self._absolute(hit["url"]),
            tags=tuple(hit.get("tags") or ()),
        )

    def _absolute(self, path: str) -> str:
        # Paths in Grafana's responses include the path that Grafana is served under.
        return urljoin(self._url, path)


def _folder(document: Mapping[str, Any]) -> Folder | None:
    uid = document.get("folderUid")
    # Some versions name the root `general`.
    return Folder(uid, document.get("folderTitle") or uid) if uid and uid != "general" else None


def _answered(status: int, body: Any, kind: type, what: str) -> Any:
    """Return the body of a successful response.

    Raises:
        ToolError: Grafana refused; the message contains its reason.
        BackendUnavailable: the response is not valid.
    """
    if status == 200 and isinstance(body, kind):
        return body
    message = body.get("message") if isinstance(body, dict) else None
    reason = f": {message}" if message else ""
    match status:
        case 401:
            raise ToolError(
                f"Grafana does not accept this server's token ({message or 'HTTP 401'}); whoever "
                "operates the server must give it a valid one"
            )
        case 403:
            raise ToolError(f"Grafana does not let its service account {what}{reason}")
        case 400 | 404 | 412 | 422:
            raise ToolError(f"Grafana refused to {what}{reason or f' (HTTP {status})'}")
    raise BackendUnavailable("Grafana", f"it answered HTTP {status}")
