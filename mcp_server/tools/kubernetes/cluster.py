"""Requests to the API server of one cluster, with errors that a caller can act on."""

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
    "VERIFY_HINT",
    "Cluster",
    "Conflict",
    "NodeUnavailable",
    "NotAllowed",
    "NotFound",
]

_AUTH = ["BearerToken"]
_MAX_QUOTE = 300
_MAX_RESPONSE_BYTES = 8 * 1024 * 1024
_MAX_STATUS_BYTES = 256 * 1024
# Share of the deadline that a kubelet may use, so that a silent kubelet is not reported as a silent API
# server.
_KUBELET_SHARE = 0.9
# Reason of a refusal of a resource version in the future, which only a forged cursor has.
_FUTURE_VERSION = "ResourceVersionTooLarge"
# Beginning of the message if an admission webhook does not answer.
_WEBHOOK_FAILED = "Internal error occurred: failed calling webhook"
VERIFY_HINT = "look with k8s_get_deployments and k8s_get_rollout_status"
"""How a caller finds out whether a change of a deployment was made."""

Verb = Literal["GET", "PUT", "PATCH"]


class NotFound(ToolError):
    """The object does not exist."""


class NotAllowed(ToolError):
    """The cluster's RBAC does not allow the request."""


class Conflict(ToolError):
    """Someone else changed the object meanwhile; nothing was changed."""


class NodeUnavailable(ToolError):
    """The API server answers, but the kubelet behind it does not."""


class Cluster:
    """The API server of one cluster, with a circuit breaker of its own.

    Objects stay raw JSON: the generated models of the client take ten times the time and fail on fields
    of another version.

    Args:
        impersonate: send the caller's id and groups, so that the cluster's RBAC applies to the caller.
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
        """Read the credentials and open the pool; the cluster does not have to be reachable.

        Raises:
            SettingsError: the credentials cannot be used.
        """
        # Imported on first use only: see the module.
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
        """GET JSON; a failed connection is retried once.

        Args:
            path: such as `/api/v1/namespaces/{namespace}/pods`, filled in from `parameters`.
            what: name of the requested object in error messages, such as `deployment web`.

        Raises:
            NotFound, NotAllowed, BackendUnavailable, ToolError: see `_raise_for`.
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
        """Send a JSON body that changes something, once.

        Args:
            dry_run: the API server validates the change without making it; this counts as a read.

        Raises:
            Conflict: someone else changed the object meanwhile.
            OutcomeUnknown: the change was sent and its result is unknown.
            NotFound, NotAllowed, BackendUnavailable, ToolError: nothing was changed, see `_raise_for`.
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
        """Report an unusable response as an outage; see `mcp_server.tools.backend.parsing`.

        Raises:
            BackendUnavailable: the block failed to parse the response.
        """
        return parsing(self.title)

    @contextmanager
    def parsing_change(self) -> Iterator[None]:
        """As `parsing`, for the response to a change.

        Raises:
            OutcomeUnknown: the block failed to parse the response.
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
        """Open a streamed response, such as a log or a watch, and yield its body.

        The deadline applies to the beginning of the response; the caller limits its duration.

        Args:
            of_node: the API server proxies the response of a kubelet, whose trouble is not its own.

        Raises:
            NodeUnavailable: the kubelet does not answer; others as `get`.
        """

        async def opened() -> aiohttp.ClientResponse:
            try:
                async with asyncio.timeout(
                    self._guard.remaining_s * _KUBELET_SHARE if of_node else None
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
                await self._raise_for(response, what)
            yield response.content
        except (aiohttp.ClientError, OSError) as error:
            raise BackendUnavailable(self.title, "the response ended early") from error
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
                await self._raise_for(response, what)
            body = await read_body(response, self.title, max_bytes=_MAX_RESPONSE_BYTES)
        try:
            document = await parse_json(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or "kind" not in document:
            # Something in front of the API server answered: all objects of the API have a kind.
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
        """Send a request and return the response with an unread body.

        of_node: the node, if the API server forwards the request to its kubelet.
            of_node: what the API server requests from a kubelet, if it does.
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
            # The guard applies the deadline; this timeout is for the connection alone.
            _request_timeout=aiohttp.ClientTimeout(total=None, connect=self._guard.connect_s),
        )
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 500:
            async with response:
                raise await self._trouble(response, of_node)
        return response

    async def _trouble(self, response: aiohttp.ClientResponse, of_node: str | None) -> ToolError:
        """Return the error for a 5xx response: of the API server, or of a system behind it.

        Only the API server itself sends a Status object; a proxy in front of it does not.
        """
        status = await self._status(response)
        if status is not None and _FUTURE_VERSION in str(status.get("details")):
            return ToolError(
                f"{self.title} does not know the resource version in the cursor; "
                "start again without cursor"
            )
        if status is not None and of_node is not None:
            return self._no_answer_of_node(of_node)
        if status is not None and str(status.get("message", "")).startswith(_WEBHOOK_FAILED):
            return ToolError(
                f"{self.title} made no change: one of its admission webhooks does not answer",
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
        """Return the Status object of a refusal, or None."""
        try:
            body = await read_body(response, self.title, max_bytes=_MAX_STATUS_BYTES)
            document = await parse_json(body)
        except (ValueError, RecursionError, ResponseTooLarge):
            return None
        return document if isinstance(document, dict) and document.get("kind") == "Status" else None

    def _on_behalf_of(self, context: ToolContext) -> list[tuple[str, str]]:
        """Return the impersonation headers, with which the cluster authorizes the caller.

        Names with the prefix `system:` belong to the cluster: such a user is refused and such a group
        is omitted, whatever the identity provider says.
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

    async def _raise_for(self, response: aiohttp.ClientResponse, what: str) -> NoReturn:
        """Raise the error for an unsuccessful response.

        The message of the API server is quoted only if it is about the request itself: messages about
        users, rules and other objects are not for the caller.
        """
        status = response.status
        retry_after = response.headers.get("Retry-After", "")
        message = str((await self._status(response) or {}).get("message", ""))
        message = truncate_middle(redact_text(message), _MAX_QUOTE)
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
                    f"{what} was changed by someone else meanwhile; nothing was changed, read it again",
                    retryable=True,
                )
            case 410:
                raise ToolError(
                    "the list has changed too much since its first page; start again without cursor"
                )
            case 400 | 422:
                raise ToolError(f"{self.title} refused the request for {what}: {message or status}")
            case 429:
                wait = f" in {retry_after} s" if retry_after.isdigit() else ""
                raise ToolError(f"{self.title} limits requests; try again{wait}", retryable=True)
        raise BackendUnavailable(self.title, f"it answered HTTP {status}")
