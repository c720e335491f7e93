"""`POST /auth/token`: exchanges the password of a directory's user for a token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from mcp_server.gate import Limited, Refused
from mcp_server.gate.sign_ins import Attempt, SignIns
from mcp_server.identity import AuthenticationError
from mcp_server.identity.directory import (
    LIFETIME_S,
    Directory,
    DirectoryTokens,
    DirectoryUnavailable,
    SignInRefused,
)
from mcp_server.transports import errors
from mcp_server.transports.bodies import parsed, read_json
from mcp_server.transports.cors import AllowedOrigins
from mcp_server.transports.errors import ErrorKind, Rejection, kind_of
from mcp_server.transports.http_guard import (
    RETRY_AFTER_S,
    canonical_ip,
    request_id_of,
    require_service,
    user_agent_of,
)

__all__ = ["TokenEndpoint"]

_MAX_BODY_BYTES = 8192
_MAX_CLAIMED_LENGTH = 256
# Tokens and passwords must not stay in a cache (RFC 6749 section 5.1).
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_REFUSED = ErrorKind(
    "invalid_grant",
    400,
    0,
    False,
    "the user or the password is wrong, or the account is not usable",
)


class TokenEndpoint:
    """Handles `POST /auth/token` with the body `{"username": …, "password": …}`.

    Responses have the members of RFC 6749 section 5: `access_token`, `token_type` and `expires_in`, or
    `error` and `error_description`. Every refusal of a user has the same text.

    Args:
        directory: None: there is none, and the response is 404.
        origins: the origins whose pages may call.
        draining: whether the node is stopping.
    """

    def __init__(
        self,
        *,
        directory: Directory | None,
        tokens: DirectoryTokens,
        sign_ins: SignIns,
        origins: AllowedOrigins,
        draining: Callable[[], bool],
    ) -> None:
        self._directory = directory
        self._tokens = tokens
        self._sign_ins = sign_ins
        self._origins = origins
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        response = await self._response(Request(scope, receive))
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        headers = request.headers
        try:
            if request.method != "POST":
                raise Rejection(
                    errors.METHOD_NOT_ALLOWED, "this path takes POST", headers={"Allow": "POST"}
                )
            require_service(headers, draining=self._draining(), origins=self._origins)
            if self._directory is None:
                raise Rejection(errors.NOT_FOUND, "no directory is configured to sign in with")
            name, password = _credentials(
                parsed(await read_json(headers, request.receive, _MAX_BODY_BYTES))
            )
            directory = self._directory
            user = await self._sign_ins.with_password(
                _attempt(request, headers, name), lambda: directory.sign_in(name, password)
            )
        except Rejection as rejection:
            return _error(
                rejection.kind, str(rejection), rejection.headers, rejection.retry_after_s
            )
        except AuthenticationError as error:  # the client's address is not known
            return _error(errors.INVALID_REQUEST, str(error))
        except SignInRefused:
            return _error(
                _REFUSED,
                "the user name or the password is wrong, or the account cannot be used; check both, "
                "or ask the administrators of the directory",
            )
        except DirectoryUnavailable:
            return _error(
                errors.UNAVAILABLE,
                "the directory does not answer; try again",
                retry_after_s=RETRY_AFTER_S,
            )
        except Refused as refusal:
            return _refusal(refusal)
        return JSONResponse(
            {
                "access_token": self._tokens.issue(user),
                "token_type": "Bearer",
                "expires_in": LIFETIME_S,
            },
            headers=_NO_STORE,
        )


def _credentials(body: Any) -> tuple[str, str]:
    if isinstance(body, dict) and set(body) == {"username", "password"}:
        name, password = body["username"], body["password"]
        if isinstance(name, str) and isinstance(password, str):
            if not name.strip() or not password:
                raise Rejection(errors.INVALID_REQUEST, "username and password must not be empty")
            return name, password
    raise Rejection(
        errors.INVALID_REQUEST,
        'the body must be an object with two strings: {"username": "…", "password": "…"}',
    )


def _attempt(request: Request, headers: Headers, name: str) -> Attempt:
    return Attempt(
        method="password",
        claimed={"user": name[:_MAX_CLAIMED_LENGTH]},
        ip=canonical_ip(request.scope),
        user_agent=user_agent_of(headers),
        request_id=request_id_of(headers),
        transport="rest",
    )


def _refusal(refusal: Refused) -> Response:
    retry_after_s = None
    if isinstance(refusal, Limited):
        retry_after_s = max(math.ceil(refusal.retry_after_ms / 1000), 1)
    elif refusal.retryable:
        retry_after_s = RETRY_AFTER_S
    return _error(kind_of(refusal), str(refusal), retry_after_s=retry_after_s)


def _error(
    kind: ErrorKind,
    message: str,
    headers: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
) -> Response:
    fields = {**_NO_STORE, **(headers or {})}
    if retry_after_s is not None:
        fields["Retry-After"] = str(retry_after_s)
    body = {"error": kind.code, "error_description": message}
    return JSONResponse(body, status_code=kind.status, headers=fields)
