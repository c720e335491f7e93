"""A small issuer whose answers a test chooses: right, wrong, large, slow or none.

It proves nothing about a real identity provider, its claims or its sign-in: test_keycloak.py does. It
serves metadata and keys over HTTP on loopback, and signs any claims with any key.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from mcp.shared.auth import JWT_BEARER_GRANT_TYPE

from tests.integration.servers import free_port

__all__ = ["ASSERTION_TYPE", "FakeIssuer", "SigningKey", "answer_with", "seconds_from_now"]

ASSERTION_TYPE = "oauth-id-jag+jwt"
"""`typ` of an identity assertion (draft-ietf-oauth-identity-assertion-authz-grant)."""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MAKERS: dict[str, tuple[Callable[[], Any], Callable[[Any], str]]] = {
    "RS256": (lambda: rsa.generate_private_key(65537, 2048), RSAAlgorithm.to_jwk),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm.to_jwk),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm.to_jwk),
}


def seconds_from_now(claims: dict[str, Any]) -> dict[str, Any]:
    """Return claims with a NumericDate in place of each time that is given as seconds from now.

    The parameters of a test must not hold a time of day: it differs between the processes that collect
    the tests, and is long past when the test runs.
    """
    now = int(time.time())
    return {
        name: now + int(value.total_seconds()) if isinstance(value, timedelta) else value
        for name, value in claims.items()
    }


class SigningKey:
    """A key pair of an issuer."""

    def __init__(self, algorithm: str = "ES256", kid: str = "") -> None:
        make, to_jwk = _MAKERS[{"PS256": "RS256"}.get(algorithm, algorithm)]
        self.algorithm = algorithm
        self.kid = kid or f"{algorithm}-{uuid.uuid4().hex[:8]}"
        self.private = make()
        public = json.loads(to_jwk(self.private.public_key()))
        self.jwk: dict[str, Any] = {**public, "kid": self.kid, "use": "sig", "alg": algorithm}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(
            claims, self.private, algorithm=self.algorithm, headers={"kid": self.kid, **header}
        )


class FakeIssuer:
    """An issuer on loopback; as an asynchronous context manager it listens.

    Attributes:
        keys: what its JWKS holds.
        answers: paths, such as `/jwks`, that are answered in another way.
        asked: the paths of all requests.
    """

    def __init__(self, *keys: SigningKey, path: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{path}"
        self.keys = list(keys)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeIssuer:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close the listener and all connections; harmless when it does not listen."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def settings(self, name: str = "company", **different: Any) -> dict[str, Any]:
        """Return an entry of `identity.issuers` for this issuer."""
        return {
            "name": name,
            "issuer": self.url,
            "audience": "https://mcp.test/mcp",
            "algorithms": ["ES256"],
            **different,
        }

    def claims(self, **different: Any) -> dict[str, Any]:
        """Return claims of a good token; None removes one."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "https://mcp.test/mcp",
            "sub": f"user-{uuid.uuid4().hex[:8]}",
            "iat": now,
            "exp": now + 300,
            "jti": uuid.uuid4().hex,
            "tenant": "default",
            "roles": ["mcp:viewer"],
            **different,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: SigningKey | None = None, **claims: Any) -> str:
        """Return a token that is signed with `key`, or else with the first one."""
        return (key or self.keys[0]).sign(self.claims(**claims))

    def assertion(self, authorization_server: str, **claims: Any) -> str:
        """Return an identity assertion (ID-JAG) for the token endpoint of an authorization server."""
        whole = self.claims(aud=authorization_server, tenant=None, roles=None, **claims)
        return self.keys[0].sign(whole, typ=ASSERTION_TYPE)

    def exchange_assertions(
        self, provider: FakeIssuer, *, client_secrets: dict[str, str], **claims: Any
    ) -> None:
        """Exchange assertions of an identity provider for access tokens (RFC 7523 section 2.1).

        Args:
            client_secrets: by client id.
            claims: further claims of each access token.
        """

        async def exchange(request: web.Request) -> web.StreamResponse:
            form = {name: str(value) for name, value in (await request.post()).items()}
            client = form.get("client_id", "")
            if client_secrets.get(client, "") != form.get("client_secret"):
                return web.json_response({"error": "invalid_client"}, status=401)
            if form.get("grant_type") != JWT_BEARER_GRANT_TYPE:
                return web.json_response({"error": "unsupported_grant_type"}, status=400)
            try:
                asserted = _verified_assertion(form["assertion"], provider, self.url)
            except (KeyError, jwt.PyJWTError):
                return web.json_response({"error": "invalid_grant"}, status=400)
            # The assertion names the client and the resource; a client cannot choose others.
            if (asserted["client_id"], asserted["resource"]) != (client, form.get("resource")):
                return web.json_response({"error": "invalid_grant"}, status=400)
            granted = set(form.get("scope", "").split()) & set(asserted["scope"].split())
            scope = " ".join(sorted(granted))
            token = self.keys[0].sign(
                self.claims(
                    sub=asserted["sub"],
                    aud=asserted["resource"],
                    client_id=client,
                    scope=scope,
                    **claims,
                ),
                typ="at+jwt",
            )
            answer = {"access_token": token, "token_type": "Bearer", "expires_in": 300}
            return web.json_response({**answer, "scope": scope})

        self.answers["/token"] = exchange

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path in self.answers:
            return await self.answers[request.path](request)
        if request.path.endswith("/jwks"):
            return web.json_response({"keys": [key.jwk for key in self.keys]})
        if request.path.endswith("/.well-known/openid-configuration"):
            return web.json_response(
                {
                    "issuer": self.url,
                    "jwks_uri": f"{self.url}/jwks",
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                }
            )
        return web.Response(status=404)


def _verified_assertion(
    assertion: str, provider: FakeIssuer, authorization_server: str
) -> dict[str, Any]:
    """Return the claims of an assertion.

    Raises:
        jwt.PyJWTError: it is not valid.
    """
    header = jwt.get_unverified_header(assertion)
    if header.get("typ") != ASSERTION_TYPE:
        raise jwt.InvalidTokenError("not an identity assertion")
    keys = {key.kid: key for key in provider.keys}
    key = keys[header["kid"]]
    claims: dict[str, Any] = jwt.decode(
        assertion,
        key.private.public_key(),
        algorithms=[key.algorithm],
        audience=authorization_server,
        issuer=provider.url,
        options={"require": ["iss", "sub", "aud", "client_id", "resource", "scope", "exp", "jti"]},
    )
    return claims


def answer_with(
    body: bytes | str = b"",
    *,
    status: int = 200,
    delay_s: float = 0.0,
    content_type: str = "application/json",
    location: str = "",
) -> Answer:
    """Return an answer with a body that a test chose."""

    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(delay_s)
        data = body.encode() if isinstance(body, str) else body
        headers = {"Location": location} if location else {}
        return web.Response(body=data, status=status, content_type=content_type, headers=headers)

    return answer
