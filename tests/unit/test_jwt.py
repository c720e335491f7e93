"""Tokens: what is believed, for how long, and why not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from mcp_server.identity import AuthenticationError, JwtVerifier, mint_token
from mcp_server.settings import JwtSettings, Secret, SettingsError

SECRET = "unit-tests-only-0123456789-0123456789"


@pytest.fixture
def verifier(tmp_path: Path) -> JwtVerifier:
    (tmp_path / "secret").write_text(SECRET)
    return JwtVerifier(
        JwtSettings(
            secret=Secret(file=tmp_path / "secret"), issuer="iss", audience="aud", leeway_s=0
        )
    )


def mint(**different: Any) -> str:
    values: dict[str, Any] = {
        "secret": SECRET,
        "issuer": "iss",
        "audience": "aud",
        "user": "alice",
        "roles": ["r2", "r1", "r2"],
        "tenant": "t",
    }
    return mint_token(**{**values, **different})


def test_a_good_token_is_a_subject(verifier: JwtVerifier) -> None:
    subject = verifier.verify(mint())

    assert (subject.id, subject.tenant, subject.roles) == ("alice", "t", ("r1", "r2"))
    assert subject.token_id


def test_a_remembered_token_ends_with_its_time(verifier: JwtVerifier) -> None:
    token = mint(ttl_s=1)
    verifier.verify(token)

    time.sleep(1.1)

    with pytest.raises(AuthenticationError, match="expired"):
        verifier.verify(token)


@pytest.mark.parametrize(
    ("claim", "value", "said"),
    [
        ("roles", "mcp:admin", "roles must be a list of strings"),
        ("roles", [1], "roles must be a list of strings"),
        ("tenant", "", "tenant must be a string of 1 to 256"),
        ("tenant", 5, "tenant must be a string"),
        ("sub", "a" * 257, "sub must be a string of 1 to 256"),
        ("sub", "a\nb", "cannot be printed"),
        ("aud", ["aud", "other"], "audience"),
    ],
)
def test_a_claim_of_the_wrong_form_is_named(
    verifier: JwtVerifier, claim: str, value: object, said: str
) -> None:
    claims = jwt.decode(mint(), SECRET, algorithms=["HS256"], audience="aud")
    token = jwt.encode({**claims, claim: value}, SECRET, algorithm="HS256")

    with pytest.raises(AuthenticationError, match=said):
        verifier.verify(token)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "eyJ.eyJ.x", "a" * 9000])
def test_what_is_not_a_token_is_refused(verifier: JwtVerifier, token: str) -> None:
    with pytest.raises(AuthenticationError):
        verifier.verify(token)


def test_another_algorithm_is_refused(verifier: JwtVerifier) -> None:
    claims = jwt.decode(mint(), SECRET, algorithms=["HS256"], audience="aud")
    secret = SECRET * 2

    with pytest.raises(AuthenticationError, match="algorithm"):
        verifier.verify(jwt.encode(claims, secret, algorithm="HS512"))


def test_a_refusal_does_not_repeat_the_token(verifier: JwtVerifier) -> None:
    token = mint(audience="elsewhere")

    with pytest.raises(AuthenticationError) as caught:
        verifier.verify(token)

    assert token not in str(caught.value)


def test_the_memory_is_bounded(verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_server.identity.jwt._CACHE_SIZE", 2)

    for number in range(4):
        verifier.verify(mint(user=f"u{number}"))

    assert len(verifier._verified) == 2


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short")

    with pytest.raises(SettingsError, match="shorter than 32 bytes"):
        JwtVerifier(JwtSettings(secret=Secret(file=tmp_path / "secret"), issuer="i", audience="a"))
