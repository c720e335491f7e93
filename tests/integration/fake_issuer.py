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

from tests.integration.servers import free_port

__all__ = ["FakeIssuer", "SigningKey", "answer_with", "seconds_from_now"]

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

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path in self.answers:
            return await self.answers[request.path](request)
        if request.path.endswith("/jwks"):
            return web.json_response({"keys": [key.jwk for key in self.keys]})
        if request.path.endswith("/.well-known/openid-configuration"):
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"})
        return web.Response(status=404)


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
