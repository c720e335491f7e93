"""Tokens of configured issuers: which keys are believed, for how long, and what an issuer is asked."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import base64url_encode

from mcp_server.identity import (
    AuthenticationError,
    IdentityUnavailable,
    VerifiedTokens,
    Verifier,
    keys,
)
from mcp_server.identity.issuers import JwksIssuer
from mcp_server.identity.jwk import read_keys
from mcp_server.settings import IssuerSettings
from tests.integration.fake_issuer import FakeIssuer, SigningKey, answer_with, seconds_from_now

pytestmark = pytest.mark.anyio

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer(SigningKey()) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_MIN_INTERVAL_S", 0.2)
    monkeypatch.setattr(keys, "_RETRY_S", 0.2)


@asynccontextmanager
async def verifying(*settings: dict[str, Any]) -> AsyncIterator[Verifier]:
    """A verifier of these issuers."""
    verified = VerifiedTokens()
    issuers = [JwksIssuer(IssuerSettings(**each), verified.clear) for each in settings]
    async with AsyncExitStack() as started:
        for issuer in issuers:
            await issuer.start()
            started.push_async_callback(issuer.stop)
        yield Verifier(issuers, verified=verified)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_each_algorithm_is_a_subject(algorithm: str) -> None:
    async with (
        FakeIssuer(SigningKey(algorithm)) as issuer,
        verifying(issuer.settings(algorithms=[algorithm])) as verifier,
    ):
        subject = await verifier.verify(issuer.token(sub="alice", azp="agent"))

    assert (subject.id, subject.tenant, subject.roles) == ("alice", "default", ("mcp:viewer",))
    assert (subject.issuer, subject.client_id, subject.method) == ("company", "agent", "jwt")


async def test_claims_are_read_at_their_paths(issuer: FakeIssuer) -> None:
    claims = {
        "subject": "preferred_username",
        "tenant": "organization.id",
        "roles": "realm_access.roles",
        "groups": ["https://mcp.example.com/groups"],
        "client": "appid",
    }
    said: dict[str, Any] = {
        "preferred_username": "alice",
        "organization": {"id": "acme"},
        "realm_access": {"roles": ["mcp:operator"]},
        "appid": "agent",
        "https://mcp.example.com/groups": ["ops"],
    }
    token = issuer.token(roles=["mcp:admin"], **said)

    async with verifying(issuer.settings(claims=claims)) as verifier:
        subject = await verifier.verify(token)

    assert (subject.id, subject.tenant, subject.client_id) == ("alice", "acme", "agent")
    assert (subject.roles, subject.groups) == (("mcp:operator",), ("ops",))


async def test_an_issuer_may_have_one_tenant_whatever_a_claim_says(issuer: FakeIssuer) -> None:
    async with verifying(issuer.settings(tenant="acme")) as verifier:
        subjects = [await verifier.verify(issuer.token(tenant=t)) for t in ("evil", None)]

    assert [subject.tenant for subject in subjects] == ["acme", "acme"]


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": None}, "lacks the claim exp"),
        ({"iat": None}, "lacks the claim iat"),
        ({"iss": None}, "lacks the claim iss"),
        ({"aud": None}, "lacks the claim aud"),
        ({"sub": None}, "lacks the claim sub"),
        ({"tenant": None}, "lacks the claim tenant"),
        ({"tenant": {"id": "acme"}}, "tenant must be a string"),
        ({"sub": "a" * 257}, "sub must be a string of 1 to 256"),
        ({"roles": "mcp:admin"}, "roles must be a list of strings"),
        ({"groups": [["ops"]]}, "groups must be a list of strings"),
        ({"aud": "https://other.test"}, "issued for another audience"),
        ({"exp": timedelta(hours=-1)}, "expired"),
        ({"iat": timedelta(hours=1), "exp": timedelta(hours=1.1)}, "check the clocks"),
        ({"nbf": timedelta(hours=1)}, "check the clocks"),
        ({"exp": timedelta(hours=2)}, "made for 7[0-9]+ seconds"),
        ({"iss": "https://elsewhere.test"}, "an issuer that is not accepted"),
        ({"_claim_names": {"groups": "src1"}}, "the user is in too many groups"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_a_token_is_said(
    issuer: FakeIssuer, claims: dict[str, Any], said: str
) -> None:
    async with verifying(issuer.settings()) as verifier:
        with pytest.raises(AuthenticationError, match=said):
            await verifier.verify(issuer.token(**seconds_from_now(claims)))


async def test_a_token_without_roles_and_groups_has_none(issuer: FakeIssuer) -> None:
    async with verifying(issuer.settings()) as verifier:
        subject = await verifier.verify(issuer.token(roles=None))

    assert (subject.roles, subject.groups) == ((), ())


def _joined(issuer: FakeIssuer, algorithm: str, signature: Callable[[bytes], bytes]) -> str:
    header = {"alg": algorithm, "typ": "JWT", "kid": issuer.keys[0].kid}
    parts = [base64url_encode(json.dumps(part).encode()) for part in (header, issuer.claims())]
    signed = b".".join(parts)
    return b".".join([signed, base64url_encode(signature(signed))]).decode()


def _unsigned(issuer: FakeIssuer) -> str:
    return _joined(issuer, "none", lambda _: b"x")


def _without_signature(issuer: FakeIssuer) -> str:
    return _joined(issuer, "none", lambda _: b"")


def _with_public_key_as_secret(issuer: FakeIssuer) -> str:
    # Key confusion: HS256 with the public key as the secret (RFC 8725 section 2.1).
    secret = (
        issuer.keys[0]
        .private.public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return _joined(issuer, "HS256", lambda signed: hmac.digest(secret, signed, "sha256"))


def _with_own_key_in_the_header(issuer: FakeIssuer) -> str:
    stranger = SigningKey(kid=issuer.keys[0].kid)
    return stranger.sign(
        issuer.claims(), jwk=stranger.jwk, jku="http://127.0.0.1:1/jwks", x5u="http://127.0.0.1:1"
    )


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (_unsigned, "algorithm is not accepted"),
        (_without_signature, "of no form that is accepted"),
        (_with_public_key_as_secret, "algorithm is not accepted"),
        (_with_own_key_in_the_header, "signature does not verify"),
    ],
)
async def test_a_forged_token_is_refused(issuer: FakeIssuer, forge: Any, said: str) -> None:
    async with verifying(issuer.settings()) as verifier:
        await verifier.verify(issuer.token())
        with pytest.raises(AuthenticationError, match=said):
            await verifier.verify(forge(issuer))

    assert issuer.asked.count("/jwks") == 1


async def test_a_key_of_another_algorithm_than_those_pinned_is_not_used() -> None:
    rsa, ec = SigningKey("RS256"), SigningKey("ES256")
    async with (
        FakeIssuer(rsa, ec) as issuer,
        verifying(issuer.settings(algorithms=["ES256"])) as verifier,
    ):
        assert await verifier.verify(issuer.token(ec))
        with pytest.raises(AuthenticationError, match="algorithm is not accepted"):
            await verifier.verify(issuer.token(rsa))


async def test_a_key_is_used_for_its_own_algorithm_only() -> None:
    key = SigningKey("RS256")
    async with (
        FakeIssuer(key) as issuer,
        verifying(issuer.settings(algorithms=["RS256", "PS256"])) as verifier,
    ):
        token = jwt.encode(issuer.claims(), key.private, "PS256", headers={"kid": key.kid})
        with pytest.raises(AuthenticationError, match="algorithm is not accepted"):
            await verifier.verify(token)


async def test_each_of_several_issuers_has_its_own_keys_and_audience() -> None:
    async with FakeIssuer(SigningKey()) as one, FakeIssuer(SigningKey(kid="k")) as other:
        both = one.settings("one"), other.settings("other", audience="https://other.test")
        async with verifying(*both) as verifier:
            subject = await verifier.verify(other.token(aud="https://other.test"))
            with pytest.raises(AuthenticationError, match="another audience"):
                await verifier.verify(other.token())
            with pytest.raises(AuthenticationError, match="kid"):
                await verifier.verify(other.keys[0].sign(one.claims()))

    assert subject.issuer == "other"


class TestKeys:
    async def test_a_new_key_is_found_without_a_restart(self, issuer: FakeIssuer) -> None:
        async with verifying(issuer.settings()) as verifier:
            await verifier.verify(issuer.token())
            issuer.keys.insert(0, SigningKey())

            assert await verifier.verify(issuer.token())

        assert issuer.asked.count("/jwks") == 2

    async def test_what_a_removed_key_signed_is_refused_even_if_it_was_cached(
        self, issuer: FakeIssuer
    ) -> None:
        old = issuer.token()
        async with verifying(issuer.settings()) as verifier:
            await verifier.verify(old)
            issuer.keys = [SigningKey()]
            await verifier.verify(issuer.token())

            with pytest.raises(AuthenticationError, match="kid"):
                await verifier.verify(old)

    async def test_unknown_keys_cannot_make_the_server_hammer_the_issuer(
        self, issuer: FakeIssuer
    ) -> None:
        async def refused() -> str:
            with pytest.raises((AuthenticationError, IdentityUnavailable)) as caught:
                await verifier.verify(SigningKey().sign(issuer.claims()))
            return type(caught.value).__name__

        async with verifying(issuer.settings()) as verifier:
            await verifier.verify(issuer.token())
            began = time.monotonic()
            refusals = await asyncio.gather(*(refused() for _ in range(300)))
            lasted = time.monotonic() - began

        # One fetch at once, one more for whoever came while it ran.
        assert issuer.asked.count("/jwks") <= 2 + lasted / keys._MIN_INTERVAL_S
        assert refusals.count("AuthenticationError") >= 1

    async def test_known_keys_go_on_while_the_issuer_is_away_and_not_for_ever(
        self, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = issuer.token
        async with verifying(issuer.settings(keys_refresh_s=1)) as verifier:
            await verifier.verify(token())
            issuer.answers["/jwks"] = answer_with(status=503)
            await asyncio.sleep(1.5)
            assert await verifier.verify(token())
            with pytest.raises(IdentityUnavailable, match="cannot be fetched at the moment"):
                await verifier.verify(SigningKey().sign(issuer.claims()))

            (found,) = verifier._issuers.values()
            assert isinstance(found, JwksIssuer)
            found._keys._succeeded -= 14_401
            with pytest.raises(IdentityUnavailable, match="issuer company cannot be fetched"):
                await verifier.verify(token())

            del issuer.answers["/jwks"]
            assert await verifier.verify(token())

    async def test_an_issuer_that_is_away_at_the_start_is_asked_again(self) -> None:
        issuer = FakeIssuer(SigningKey())
        async with verifying(issuer.settings()) as verifier:
            with pytest.raises(IdentityUnavailable):
                await verifier.verify(issuer.token())
            async with issuer:
                assert await verifier.verify(issuer.token())

    @pytest.mark.parametrize(
        "answer",
        [
            answer_with("<html>Sign in</html>", content_type="text/html"),
            answer_with(""),
            answer_with("[]"),
            answer_with("{}"),
            answer_with('{"keys": []}'),
            answer_with('{"keys": {"a": 1}}'),
            answer_with("[" * 200_000),
            answer_with(b" " * 10 * 1024 * 1024),
            answer_with('{"keys": []}', status=500),
            answer_with(status=302, location="/elsewhere"),
            answer_with('{"keys": []}', delay_s=2),
        ],
        ids=[
            *("html", "empty", "list", "no keys", "empty keys", "object", "brackets", "10 MB"),
            *("500", "redirect", "slow"),
        ],
    )
    async def test_a_bad_answer_is_told_apart_from_a_bad_token(
        self, issuer: FakeIssuer, answer: Any
    ) -> None:
        issuer.answers["/jwks"] = answer
        began = time.monotonic()
        async with verifying(issuer.settings(timeout_s=0.5)) as verifier:
            with pytest.raises(IdentityUnavailable, match="try again"):
                await verifier.verify(issuer.token())
            assert time.monotonic() - began < 2
            assert "/elsewhere" not in issuer.asked

            del issuer.answers["/jwks"]
            assert await verifier.verify(issuer.token())

    async def test_a_body_that_does_not_end_is_cut_off(self, issuer: FakeIssuer) -> None:
        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)

        issuer.answers["/jwks"] = endless
        async with verifying(issuer.settings(timeout_s=0.5)) as verifier:
            with pytest.raises(IdentityUnavailable):
                await verifier.verify(issuer.token())


class TestDiscovery:
    async def test_metadata_of_rfc_8414_are_found_too(self) -> None:
        async with FakeIssuer(SigningKey(), path="/tenant1") as issuer:
            issuer.answers["/tenant1/.well-known/openid-configuration"] = answer_with(status=404)
            metadata = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
            path = "/.well-known/oauth-authorization-server/tenant1"
            issuer.answers[path] = answer_with(json.dumps(metadata))
            async with verifying(issuer.settings()) as verifier:
                assert await verifier.verify(issuer.token())

    async def test_with_a_jwks_uri_nothing_is_discovered(self, issuer: FakeIssuer) -> None:
        async with verifying(issuer.settings(jwks_uri=f"{issuer.url}/jwks")) as verifier:
            assert await verifier.verify(issuer.token())

        assert issuer.asked == ["/jwks"]

    @pytest.mark.parametrize(
        "different",
        [
            {"issuer": "https://other.test"},
            {"issuer": None},
            {"jwks_uri": None},
            {"jwks_uri": "http://192.0.2.1/jwks"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": ["https://x.test"]},
        ],
        ids=str,
    )
    async def test_metadata_that_are_wrong_are_not_followed(
        self, issuer: FakeIssuer, different: dict[str, Any]
    ) -> None:
        metadata = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks", **different}
        path = "/.well-known/openid-configuration"
        issuer.answers[path] = answer_with(json.dumps(metadata))
        async with verifying(issuer.settings()) as verifier:
            with pytest.raises(IdentityUnavailable):
                await verifier.verify(issuer.token())

        assert "/jwks" not in issuer.asked


def test_only_public_keys_for_signatures_are_read() -> None:
    good, other = SigningKey("RS256"), SigningKey("EdDSA")
    small = {"kty": "RSA", "kid": "small", "n": "AQAB", "e": "AQAB"}
    document = {
        "keys": [
            good.jwk,
            other.jwk,
            {**good.jwk, "kid": "enc", "use": "enc"},
            {**good.jwk, "kid": "private", "d": "x"},
            {**good.jwk, "kid": "hs", "alg": "HS256"},
            {**good.jwk, "kid": ""},
            {key: value for key, value in good.jwk.items() if key != "kid"},
            {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
            small,
            {**other.jwk, "kid": "twice"},
            {**good.jwk, "kid": "twice"},
            "not a key",
        ]
    }

    found = read_keys(document, ALGORITHMS)

    assert found.keys() == {good.kid, other.kid}
    assert found[good.kid].algorithms == ("RS256",)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["keys", "kid", "kty", "use", "alg", "n", "e", "x", "y", "crv", "d"]
                ),
                inner | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "sig"]),
                max_size=6,
            )
        ),
    )
)
def test_whatever_an_issuer_sends_as_a_key_is_read_or_left_out(entry: Any) -> None:
    assert isinstance(read_keys({"keys": [entry]}, ALGORITHMS), dict)
