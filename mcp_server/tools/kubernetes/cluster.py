"""One cluster: raw JSON from its API server, with errors that a caller can act on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import aiohttp
from multidict import CIMultiDict

from mcp_server.settings import ClusterSettings
from mcp_server.tools.backend import BackendUnavailable, Guard, read_answer
from mcp_server.tools.catalog import ToolContext, ToolError

if TYPE_CHECKING:
    from mcp_server.tools.kubernetes.connection import Connection

__all__ = ["TABLE", "Cluster", "Conflict", "NotAllowed", "NotFound"]

_AUTH = ["BearerToken"]
_MAX_SAID = 300
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
"""Accept header with which the API server prints objects as it does for kubectl."""

Verb = Literal["GET", "PUT", "PATCH"]


class NotFound(ToolError):
    """The cluster does not have it."""


class NotAllowed(ToolError):
    """The cluster's own rules do not allow it."""


class Conflict(ToolError):
    """It was changed by someone else meanwhile; nothing was done."""


class Cluster:
    """The API server of one cluster, behind a circuit breaker of its own.

    Objects are read as raw JSON: the client's generated models cost ten times the time, and would
    fail on fields of another version.

    Args:
        impersonate: send the caller's id and groups, so that the cluster's RBAC judges them.
        timeout_s: deadline of one call in seconds, retries included.
    """

    def __init__(
        self, name: str, settings: ClusterSettings, *, impersonate: bool, timeout_s: float
    ) -> None:
        self.name = name
        self.title = f"the Kubernetes cluster {name}"
        self._settings = settings
        self._impersonate = impersonate
        self._timeout_s = timeout_s
        self._guard = Guard(self.title, timeout_s=timeout_s)
        self._connection: Connection | None = None

    async def start(self) -> None:
        """Read the credentials and make the pool; the cluster need not be up.

        Raises:
            SettingsError: the credentials cannot be used.
        """
        # Imported here, and here only: see the module.
        from mcp_server.tools.kubernetes.connection import Connection  # noqa: PLC0415

        self._connection = await Connection.open(self.name, self._settings)

    async def stop(self) -> None:
        """Close all connections."""
        if self._connection is not None:
            await self._connection.close()

    async def get(
        self,
        path: str,
        parameters: Mapping[str, str],
        context: ToolContext,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
    ) -> dict[str, Any]:
        """Read JSON; a failed connection is tried once more.

        Args:
            path: such as `/api/v1/namespaces/{namespace}/pods`, filled in from `parameters`.
            what: how an error names what was asked for, such as `deployment web`.

        Raises:
            NotFound, NotAllowed, BackendUnavailable, ToolError: see `_refuse`.
        """
        return await self._guard.call(
            lambda: self._exchange(
                "GET", path, parameters, context, what=what, query=query, accept=accept
            ),
            retry=True,
        )

    async def change(
        self,
        verb: Literal["PUT", "PATCH"],
        path: str,
        parameters: Mapping[str, str],
        context: ToolContext,
        *,
        what: str,
        body: Mapping[str, Any],
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send JSON that changes something; never tried twice. Raises as `get`, and Conflict."""
        return await self._guard.call(
            lambda: self._exchange(
                verb, path, parameters, context, what=what, query=query, body=body
            ),
            retry=False,
        )

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        parameters: Mapping[str, str],
        context: ToolContext,
        *,
        what: str,
        query: Mapping[str, str],
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Open a long answer, such as a log or a watch, and give its bytes as they come.

        The deadline holds for the answer's beginning; how long it may last is the caller's to say.
        Raises as `get`.
        """
        response = await self._guard.call(
            lambda: self._open("GET", path, parameters, context, query=query), retry=True
        )
        try:
            if response.status != 200:
                await self._refuse(response, what)
            yield response.content
        except (aiohttp.ClientError, OSError) as error:
            raise BackendUnavailable(self.title, "the answer broke off") from error
        finally:
            response.close()

    async def _exchange(
        self,
        verb: Verb,
        path: str,
        parameters: Mapping[str, str],
        context: ToolContext,
        *,
        what: str,
        **options: Any,
    ) -> dict[str, Any]:
        response = await self._open(verb, path, parameters, context, **options)
        async with response:
            if response.status not in (200, 201):
                await self._refuse(response, what)
            body = await read_answer(response, self.title)
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise BackendUnavailable(self.title, "its answer is not a JSON object")
        return document

    async def _open(
        self,
        verb: Verb,
        path: str,
        parameters: Mapping[str, str],
        context: ToolContext,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
        body: Mapping[str, Any] | None = None,
    ) -> aiohttp.ClientResponse:
        if self._connection is None:
            raise RuntimeError(f"{self.title} was not started")
        api = self._connection.api
        headers = {"Accept": accept}
        if verb == "PATCH":
            headers["Content-Type"] = "application/strategic-merge-patch+json"
        method, url, headers, sent, _ = await api.param_serialize(
            verb, path, dict(parameters), dict(query or {}), headers, body, auth_settings=_AUTH
        )
        answer = await api.call_api(
            method,
            url,
            CIMultiDict([*headers.items(), *self._on_behalf_of(context)]),
            sent,
            # The guard holds the deadline; what is left here is a connection that cannot be made.
            _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s),
        )
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 500:
            response.close()
            raise BackendUnavailable(self.title, f"it answered HTTP {response.status}")
        return response

    def _on_behalf_of(self, context: ToolContext) -> list[tuple[str, str]]:
        """Return the headers that make the cluster judge the caller instead of this server.

        Names below `system:` are the cluster's own: a user who bears one is refused, and a group
        is left out, whatever the identity provider says.
        """
        if not self._impersonate:
            return []
        names = (context.user, *context.groups)
        if not all(name.isprintable() and name == name.strip() and name for name in names):
            raise ToolError("your id or a group of yours cannot be sent to a cluster")
        if context.user.startswith("system:"):
            raise NotAllowed(f"{self.title} does not take calls from a user called {context.user}")
        return [
            ("Impersonate-User", context.user),
            *(("Impersonate-Group", n) for n in context.groups if not n.startswith("system:")),
        ]

    async def _refuse(self, response: aiohttp.ClientResponse, what: str) -> NoReturn:
        """Raise what an answer other than success means.

        The API server's own words are passed on only where they are about what the caller sent:
        what they say of users, rules and other objects is not the caller's to know.
        """
        status = response.status
        retry_after = response.headers.get("Retry-After", "")
        try:
            document = json.loads(await read_answer(response, self.title))
            said = str(document.get("message", ""))[:_MAX_SAID]
        except (ValueError, AttributeError):
            said = ""
        match status:
            case 401:
                raise ToolError(
                    f"{self.title} does not accept this server's credentials; "
                    "an administrator has to renew them"
                )
            case 403 if self._impersonate:
                raise NotAllowed(
                    f"{self.title} does not allow you {what}; ask its administrator for a role"
                )
            case 403:
                raise NotAllowed(
                    f"{self.title} does not allow this server {what}; "
                    "its administrator can widen the role of the server's account"
                )
            case 404:
                raise NotFound(f"{self.title} has no {what}")
            case 409:
                raise Conflict(
                    f"{what} was changed by someone else meanwhile; nothing was done, read it again",
                    retryable=True,
                )
            case 410:
                raise ToolError(
                    "the list has changed too much since its first page; start again without cursor"
                )
            case 400 | 422:
                raise ToolError(f"{self.title} refused the request for {what}: {said or status}")
            case 429:
                wait = f" in {retry_after} s" if retry_after.isdigit() else ""
                raise ToolError(
                    f"{self.title} has too much to do and asks to try again{wait}", retryable=True
                )
        raise BackendUnavailable(self.title, f"it answered HTTP {status}")
