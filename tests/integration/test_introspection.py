"""Opaque tokens: what the issuer is asked, and which of its answers are believed."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import encode_basic_auth, web

from mcp_server.identity import AuthenticationError, IdentityUnavailable, Verifier
from mcp_server.identity.introspection import Introspection
from mcp_server.settings import IssuerSettings
from tests.integration.fake_issuer import FakeIssuer, answer_with, seconds_from_now

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def asking(
    folder: Path, answer: Any, cache_s: float = 30
) -> AsyncIterator[tuple[FakeIssuer, Verifier]]:
    """An issuer whose endpoint answers `answer`, and a verifier that asks it."""
    (folder / "secret").write_text("mcp-server-secret")
    async with FakeIssuer() as issuer:
        issuer.answers["/introspect"] = answer
        endpoint = {
            "url": f"{issuer.url}/introspect",
            "client_id": "mcp-server",
            "client_secret": {"file": folder / "secret"},
            "cache_s": cache_s,
            "timeout_s": 0.5,
        }
        settings = IssuerSettings(**issuer.settings(algorithms=[], introspection=endpoint))
        assert settings.introspection is not None
        introspection = Introspection(settings, settings.introspection)
        await introspection.start()
        try:
            yield issuer, Verifier([introspection], opaque=introspection)
        finally:
            await introspection.stop()


def _claims(**different: Any) -> str:
    now = int(time.time())
    claims = {
        "active": True,
        "aud": ["https://mcp.test/mcp"],
        "sub": "alice",
        "tenant": "default",
        "roles": ["mcp:viewer"],
        "scope": "mcp:read",
        "client_id": "agent",
        "iat": now,
        "exp": now + 300,
        **different,
    }
    return json.dumps({name: value for name, value in claims.items() if value is not None})


async def test_an_active_token_is_a_subject_and_its_issuer_is_asked_once(tmp_path: Path) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers["Authorization"], dict(await request.post())))
        return web.Response(text=_claims(), content_type="application/json")

    async with asking(tmp_path, answer) as (_, verifier):
        subjects = [await verifier.verify("opaque-1") for _ in range(3)]

    assert {(s.id, s.client_id, s.scopes, s.method) for s in subjects} == {
        ("alice", "agent", ("mcp:read",), "introspection")
    }
    login = encode_basic_auth("mcp-server", "mcp-server-secret")
    assert seen == [(login, {"token": "opaque-1", "token_type_hint": "access_token"})]


async def test_a_token_that_the_issuer_ends_is_refused_after_the_cache(tmp_path: Path) -> None:
    async with asking(tmp_path, answer_with(_claims()), cache_s=0) as (issuer, verifier):
        assert await verifier.verify("opaque")
        issuer.answers["/introspect"] = answer_with('{"active": false}')
        with pytest.raises(AuthenticationError, match="says that the token is not valid"):
            await verifier.verify("opaque")


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"active": False}, "not valid"),
        ({"active": "true"}, "not valid"),
        ({"active": None}, "not valid"),
        ({"iss": "https://elsewhere.test"}, "an issuer that is not accepted"),
        ({"aud": "https://other.test"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"exp": None}, "lacks the claim exp"),
        ({"exp": 1}, "expired"),
        ({"exp": "soon"}, "exp must be a NumericDate"),
        ({"exp": timedelta(hours=2)}, "made for 7[0-9]+ seconds"),
        ({"sub": None}, "lacks the claim sub"),
        ({"tenant": None}, "lacks the claim tenant"),
        ({"roles": "mcp:admin"}, "roles must be a list"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_an_answer_is_said(
    tmp_path: Path, claims: dict[str, Any], said: str
) -> None:
    async with asking(tmp_path, answer_with(_claims(**seconds_from_now(claims)))) as (_, verifier):
        with pytest.raises(AuthenticationError, match=said):
            await verifier.verify("opaque")


@pytest.mark.parametrize(
    "answer",
    [
        answer_with("<html>"),
        answer_with("[]"),
        answer_with(status=401),
        answer_with(status=500),
        answer_with(_claims(), delay_s=2),
        answer_with(b" " * 1024 * 1024),
    ],
    ids=["html", "list", "401", "500", "slow", "large"],
)
async def test_an_issuer_that_does_not_answer_is_no_bad_token(tmp_path: Path, answer: Any) -> None:
    async with asking(tmp_path, answer) as (_, verifier):
        with pytest.raises(IdentityUnavailable, match="cannot be asked about the token"):
            await verifier.verify("opaque")


@pytest.mark.parametrize("token", ["a b", "a\n", "ä", "a" * 8193, '"'])
async def test_what_cannot_be_a_token_is_not_sent(tmp_path: Path, token: str) -> None:
    async with asking(tmp_path, answer_with(_claims())) as (issuer, verifier):
        with pytest.raises(AuthenticationError):
            await verifier.verify(token)

    assert issuer.asked == []
