"""One cluster: raw JSON from its API server, with errors that a caller can act on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import aiohttp
from multidict import CIMultiDict

from mcp_server.redaction import redact_text
from mcp_server.settings import ClusterSettings
from mcp_server.tools.backend import (
    BackendUnavailable,
    Guard,
    OutcomeUnknown,
    ResponseTooLarge,
    parse_json,
    parsing,
    read_body,
)
from mcp_server.tools.catalog import ToolContext, ToolError
from mcp_server.tools.text import truncate_middle

if TYPE_CHECKING:
    from mcp_server.tools.kubernetes.connection import Connection

__all__ = [
    "TABLE",
    "VERIFY_HINT",
    "Cluster",
    "Conflict",
    "NodeUnavailable",
    "NotAllowed",
    "NotFound",
]

_AUTH = ["BearerToken"]
_MAX_SAID = 300
_MAX_ANSWER_BYTES = 8 * 1024 * 1024
_MAX_REFUSAL_BYTES = 256 * 1024
# Of the deadline of a call: what a node may take, so that the API server is not blamed for it.
_SHARE_OF_A_NODE = 0.9
# Why it refuses a state that is not there yet, which no cursor of ours names.
_STATE_UNKNOWN = "ResourceVersionTooLarge"
# So the API server begins its message where a webhook that must judge a change does not answer.
_WEBHOOK_FAILED = "Internal error occurred: failed calling webhook"
VERIFY_HINT = "look with k8s_get_deployments and k8s_get_rollout_status"
"""How a caller learns whether a change of a deployment was made."""
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
"""Accept header with which the API server prints objects as it does for kubectl."""

Verb = Literal["GET", "PUT", "PATCH"]


class NotFound(ToolError):
    """The cluster does not have it."""


class NotAllowed(ToolError):
    """The cluster's own rules do not allow it."""


class Conflict(ToolError):
    """It was changed by someone else meanwhile; nothing was done."""


class NodeUnavailable(ToolError):
    """The API server answers, and the node that it had to ask does not."""


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
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Send JSON that changes something, once.

        Args:
            dry_run: let the API server judge the change and not make it; then it is as a read.

        Raises:
            Conflict: it was changed meanwhile.
            OutcomeUnknown: it was sent, and nothing tells whether the change was made.
            NotFound, NotAllowed, BackendUnavailable, ToolError: it was not made, see `_refuse`.
        """
        query = {"dryRun": "All"} if dry_run else None
        return await self._guard.call(
            lambda: self._exchange(
                verb, path, parameters, context, what=what, query=query, body=body
            ),
            retry=dry_run,
            verify_hint=VERIFY_HINT,
        )

    def parsing(self) -> AbstractContextManager[None]:
        """Take what is not of the API for an outage: for a block that reads an answer.

        Raises:
            BackendUnavailable: the block could make nothing of it.
        """
        return parsing(self.title)

    @contextmanager
    def parsing_change(self) -> Iterator[None]:
        """As `parsing`, of the answer to a change that was sent.

        Raises:
            OutcomeUnknown: the block could make nothing of it.
        """
        try:
            with parsing(self.title):
                yield
        except BackendUnavailable as error:
            raise OutcomeUnknown(
                self.title, f"gave no usable answer ({error})", verify_hint=VERIFY_HINT
            ) from error

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        parameters: Mapping[str, str],
        context: ToolContext,
        *,
        what: str,
        query: Mapping[str, str],
        of_node: bool = False,
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Open a long answer, such as a log or a watch, and give its bytes as they come.

        The deadline holds for the answer's beginning; how long it may last is the caller's to say.

        Args:
            of_node: the API server passes on what a node answers. A node's trouble is not its own.

        Raises:
            NodeUnavailable: the node does not answer; others as `get`.
        """

        async def opened() -> aiohttp.ClientResponse:
            try:
                async with asyncio.timeout(
                    self._guard.remaining_s * _SHARE_OF_A_NODE if of_node else None
                ):
                    return await self._open(
                        "GET",
                        path,
                        parameters,
                        context,
                        query=query,
                        of_node=what if of_node else None,
                    )
            except TimeoutError as error:
                if isinstance(error, aiohttp.ClientError):
                    raise
                raise self._no_answer_of_node(what) from None

        response = await self._guard.call(opened, retry=True, streaming=True)
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
            body = await read_body(response, self.title, max_bytes=_MAX_ANSWER_BYTES)
        try:
            document = await parse_json(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or "kind" not in document:
            # Something before the API server answered: each of its own objects tells its kind.
            raise BackendUnavailable(self.title, "its response does not conform to its API")
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
        of_node: str | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request and return its answer, whose body is still to be read.

        Args:
            of_node: what the API server has to ask a node for, if so.
        """
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
            _request_timeout=aiohttp.ClientTimeout(total=None, connect=self._guard.connect_s),
        )
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 500:
            async with response:
                raise await self._trouble(response, of_node)
        return response

    async def _trouble(self, response: aiohttp.ClientResponse, of_node: str | None) -> ToolError:
        """Return what a server error tells: that the API server is in trouble, or something behind it.

        Only the API server itself writes a Status; what stands before it writes something else.
        """
        status = await self._status(response)
        if status is not None and _STATE_UNKNOWN in str(status.get("details")):
            return ToolError(
                f"{self.title} does not know the state of the list that the cursor names; "
                "start again without cursor"
            )
        if status is not None and of_node is not None:
            return self._no_answer_of_node(of_node)
        if status is not None and str(status.get("message", "")).startswith(_WEBHOOK_FAILED):
            return ToolError(
                f"{self.title} made no change: an admission webhook of it does not answer",
                retryable=True,
            )
        return BackendUnavailable(self.title, f"it answered HTTP {response.status}")

    def _no_answer_of_node(self, what: str) -> NodeUnavailable:
        return NodeUnavailable(
            f"{self.title} cannot read the {what}: the node of the pod does not answer it "
            "(k8s_get_pods tells which node)",
            retryable=True,
        )

    async def _status(self, response: aiohttp.ClientResponse) -> dict[str, Any] | None:
        """Return the Status that the API server explains a refusal with, or None."""
        try:
            body = await read_body(response, self.title, max_bytes=_MAX_REFUSAL_BYTES)
            document = await parse_json(body)
        except (ValueError, RecursionError, ResponseTooLarge):
            return None
        return document if isinstance(document, dict) and document.get("kind") == "Status" else None

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
        said = str((await self._status(response) or {}).get("message", ""))
        said = truncate_middle(redact_text(said), _MAX_SAID)
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
