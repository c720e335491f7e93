"""A strict fake of the part of Grafana's HTTP API that the dashboard tool and documents use.

Grafana itself cannot run where these tests run. The fake was written from what Grafana publishes: the
OpenAPI description (`public/openapi3.json`: paths, `SaveDashboardCommand`, `Hit`, `DashboardMeta`), the
documented statuses and messages of errors, and the JSON schema of dashboards (definitions
`Dashboard`, `Panel`, `GridPos`, `DataSourceRef`; only what this server may send). It is stricter than
Grafana, which stores nearly any JSON: an unknown key or a wrong type is answered with 422. The
description is under the AGPL and not copied here. Its `postDashboardResponse`, `Hit`,
`DashboardMeta` and `ErrorResponseBody` were compared with the fake by hand (grafana/grafana at
004965ecf88f): beside `orgId` of a hit, and what is marked below, the fake answers what stands there.

What it does not prove: that a browser shows the panels, that a certain version of Grafana behaves as
documented, how fast it is, how Grafana's own search ranks and tokenizes, and how permissions of
folders and teams combine. `name-exists` is what older versions answer; `--duplicates` makes it behave
like newer ones, which take a second dashboard of the same title. The real thing has to be tried once
by hand: docs/grafana.md says how.

Started as a process (`FakeGrafana`), with two service accounts, whose tokens are below.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from tests.integration.servers import Server, free_port

__all__ = [
    "EDITOR_TOKEN",
    "FOLDERS",
    "HIDDEN_TITLE",
    "SUB_PATH",
    "VIEWER_TOKEN",
    "FakeGrafana",
]

EDITOR_TOKEN = "glsa_editor_for_tests_only"
VIEWER_TOKEN = "glsa_viewer_for_tests_only"
SUB_PATH = "/grafana"
HIDDEN_TITLE = "Payroll"
"""A dashboard at the root that neither service account may see."""
FOLDERS = {"ops": "Operations", "team-a": "Twins", "team-b": "Twins"}

_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_Text = Annotated[str, Field(strict=True)]


# --- what may be sent ---------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _DataSourceRef(_Strict):
    type: Literal["prometheus"]
    uid: str


class _Target(_Strict):
    """`Dataquery` of the Prometheus data source."""

    ref_id: Annotated[str, Field(min_length=1)]
    expr: Annotated[str, Field(min_length=1)]
    datasource: _DataSourceRef
    legend_format: str | None = None
    instant: bool | None = None
    range: bool | None = None
    format: Literal["time_series", "table", "heatmap"] | None = None


class _GridPos(_Strict):
    h: Annotated[int, Field(gt=0)]
    w: Annotated[int, Field(gt=0, le=24)]
    x: Annotated[int, Field(ge=0, lt=24)]
    y: Annotated[int, Field(ge=0)]


class _FieldDefaults(_Strict):
    unit: str | None = None


class _FieldConfig(_Strict):
    defaults: _FieldDefaults
    overrides: Annotated[list[Any], Field(max_length=0)]


class _Panel(_Strict):
    id: Annotated[int, Field(gt=0)]
    type: Literal["timeseries", "stat", "gauge", "bargauge", "table"]
    title: str
    targets: Annotated[list[_Target], Field(min_length=1)]
    datasource: _DataSourceRef
    grid_pos: _GridPos
    field_config: _FieldConfig | None = None
    transparent: bool = False
    repeat_direction: Literal["h", "v"] = "h"


class _Time(_Strict):
    from_: Annotated[str, Field(alias="from")]
    to: str


class _Nothing(_Strict):
    """`templating` and `annotations` without entries."""


class _Dashboard(_Strict):
    schema_version: int
    templating: _Nothing
    annotations: _Nothing
    title: str
    uid: str | None = None
    version: int | None = None
    tags: list[str]
    timezone: str
    editable: bool
    graph_tooltip: Literal[0, 1, 2]
    time: _Time
    fiscal_year_start_month: Annotated[int, Field(ge=0, lt=12)]
    refresh: str
    panels: list[_Panel]


class _SaveDashboardCommand(_Strict):
    dashboard: dict[str, Any]
    folder_uid: str | None = None
    message: str = ""
    overwrite: bool = False


class _SearchQuery(BaseModel):
    """The parameters of `/api/search` that this server may send; text, as they stand in a URL."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["dash-db", "dash-folder"]
    limit: Annotated[int, Field(ge=1, le=5000)]
    page: Annotated[int, Field(ge=1)]
    query: _Text = ""


# --- how it answers -----------------------------------------------------------------------------


class _Refused(Exception):
    def __init__(self, status: int, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message} | ({} if name is None else {"status": name})


@dataclass
class _Stored:
    model: dict[str, Any]
    folder: str | None
    message: str

    @property
    def path(self) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", self.model["title"].lower()).strip("-")
        return f"{SUB_PATH}/d/{self.model['uid']}/{slug}"


class _Api:
    def __init__(self, *, duplicates: bool) -> None:
        self._duplicates = duplicates
        self._stored: dict[str, _Stored] = {}
        self._numbers = itertools.count(1)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_answered])
        app.add_routes(
            [
                web.get(f"{SUB_PATH}/api/health", self._health),
                web.get(f"{SUB_PATH}/api/search", self._search),
                web.get(f"{SUB_PATH}/api/dashboards/uid/{{uid}}", self._read),
                web.post(f"{SUB_PATH}/api/dashboards/db", self._save),
            ]
        )
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"database": "ok", "version": "fake"})

    async def _search(self, request: web.Request) -> web.Response:
        asked = _SearchQuery.model_validate(dict(request.query))
        if asked.type == "dash-folder":
            hits: list[dict[str, Any]] = [
                {"uid": uid, "title": title, "url": f"{SUB_PATH}/dashboards/f/{uid}", "tags": []}
                for uid, title in FOLDERS.items()
            ]
        else:
            hits = [_hit(stored) for stored in self._stored.values()]
        hits = [
            {**hit, "id": number, "orgId": 1, "type": asked.type}
            for number, hit in enumerate(hits, start=1)
            if asked.query.casefold() in hit["title"].casefold()
        ]
        hits.sort(key=lambda hit: str(hit["title"]))
        first = (asked.page - 1) * asked.limit
        return web.json_response(hits[first : first + asked.limit])

    async def _read(self, request: web.Request) -> web.Response:
        stored = self._stored.get(request.match_info["uid"])
        if stored is None:
            raise _Refused(404, "Dashboard not found", "not-found")
        meta = {
            "url": stored.path,
            "folderUid": stored.folder or "",
            "folderTitle": FOLDERS[stored.folder] if stored.folder else "General",
            "version": stored.model["version"],
            "provisioned": False,
            # Not in Grafana's answer: what the history shows.
            "message": stored.message,
        }
        return web.json_response({"dashboard": stored.model, "meta": meta})

    async def _save(self, request: web.Request) -> web.Response:
        if _token(request) != EDITOR_TOKEN:
            raise _Refused(
                403,
                "You'll need additional permissions to perform this action. "
                "Permissions needed: dashboards:create",
            )
        if request.content_type != "application/json":
            raise _Refused(400, "bad request data")
        command = _SaveDashboardCommand.model_validate_json(await request.text())
        if not str(command.dashboard.get("title", "")).strip():
            raise _Refused(400, "Dashboard title cannot be empty", "empty-name")
        asked = _Dashboard.model_validate(command.dashboard)
        if asked.uid is not None and not _UID.fullmatch(asked.uid):
            raise _Refused(400, "uid contains illegal characters")
        folder = command.folder_uid or None
        if folder is not None and folder not in FOLDERS:
            raise _Refused(400, "folder not found")
        if not self._duplicates and not command.overwrite and self._taken(asked, folder):
            raise _Refused(
                412, "A dashboard with the same name in the folder already exists", "name-exists"
            )
        version = self._next_version(asked, overwrite=command.overwrite)
        number = next(self._numbers)
        uid = asked.uid or f"generated{number}"
        stored = _Stored(
            {**command.dashboard, "id": number, "uid": uid, "version": version},
            folder,
            command.message,
        )
        self._stored[uid] = stored
        return web.json_response(
            {
                "id": number,
                "uid": uid,
                "url": stored.path,
                "status": "success",
                "version": version,
                # The description calls the slug `title`, and requires it; servers say `slug`.
                "title": stored.path.rpartition("/")[2],
                "slug": stored.path.rpartition("/")[2],
                "folderUid": folder or "",
            }
        )

    def _next_version(self, asked: _Dashboard, *, overwrite: bool) -> int:
        if asked.uid not in self._stored:
            return 1
        current: int = self._stored[asked.uid].model["version"]
        if asked.version != current and not overwrite:
            raise _Refused(
                412, "The dashboard has been changed by someone else", "version-mismatch"
            )
        return current + 1

    def _taken(self, asked: _Dashboard, folder: str | None) -> bool:
        if folder is None and asked.title == HIDDEN_TITLE:
            return True
        return any(
            stored.folder == folder
            and stored.model["title"].casefold() == asked.title.casefold()
            and stored.model["uid"] != asked.uid
            for stored in self._stored.values()
        )


def _hit(stored: _Stored) -> dict[str, Any]:
    hit = {
        "uid": stored.model["uid"],
        "title": stored.model["title"],
        "url": stored.path,
        "tags": stored.model["tags"],
    }
    if stored.folder is not None:
        hit |= {"folderUid": stored.folder, "folderTitle": FOLDERS[stored.folder]}
    return hit


def _token(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
    )


@web.middleware
async def _answered(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Look at the token, and turn what was raised into an answer."""
    token = _token(request)
    try:
        if not request.path.endswith("/api/health"):
            if not token:
                raise _Refused(401, "Unauthorized")
            if token not in (EDITOR_TOKEN, VIEWER_TOKEN):
                raise _Refused(401, "Invalid API key")
        return await handler(request)
    except _Refused as refused:
        return web.json_response(refused.body, status=refused.status)
    except ValidationError as error:
        return web.json_response({"message": _faults(error)}, status=422)


# --- the process --------------------------------------------------------------------------------


class FakeGrafana(Server):
    """The fake as a process on loopback; it forgets its dashboards when it stops.

    Args:
        duplicates: take a second dashboard of the same title, as newer versions do.
    """

    def __init__(self, directory: Path, *, duplicates: bool = False) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{SUB_PATH}"
        self._duplicates = duplicates

    def command(self) -> list[str]:
        flags = ["--duplicates"] if self._duplicates else []
        root = Path(__file__).resolve().parents[2]
        program = [sys.executable, "-m", "tests.integration.fake_grafana"]
        return ["env", f"PYTHONPATH={root}", *program, str(self.port), *flags]

    def ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/api/health", timeout=2) as answer:
            return bool(answer.status == 200)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--duplicates", action="store_true")
    arguments = parser.parse_args()
    api = _Api(duplicates=arguments.duplicates)
    web.run_app(api.application(), host="127.0.0.1", port=arguments.port, print=None)


if __name__ == "__main__":
    _main()
