"""Tokens: what is believed, for how long, and why not."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings, strategies

from mcp_server.cli import main
from mcp_server.identity import (
    AuthenticationError,
    SharedSecret,
    Subject,
    Verifier,
    mint_token,
)
from mcp_server.settings import JwtSettings, Secret, SettingsError

SECONDS = "a number of seconds since 1970, no later than the year 9999"
SECRET = "unit-tests-only-0123456789-0123456789"


def make_verifier(folder: Path, **different: Any) -> Verifier:
    (folder / "secret").write_text(SECRET)
    values = {"issuer": "iss", "audience": "aud", "leeway_s": 0, **different}
    return Verifier([SharedSecret(JwtSettings(secret=Secret(file=folder / "secret"), **values))])


def verify(verifier: Verifier, token: str) -> Subject:
    return asyncio.run(verifier.verify(token))


@pytest.fixture
def verifier(tmp_path: Path) -> Verifier:
    return make_verifier(tmp_path)


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


def mint_with(**claims: Any) -> str:
    """Return a signed token with these claims, and those of a good one beside them."""
    return signed(json.dumps({**_good(), **claims}))


def _good() -> dict[str, Any]:
    return jwt.decode(mint(), SECRET, algorithms=["HS256"], audience="aud")


def signed(payload: str, **header: Any) -> str:
    return jwt.PyJWS().encode(payload.encode(), SECRET, algorithm="HS256", headers=header)


def run_token(folder: Path, *options: str) -> Result:
    (folder / "secret").write_text(SECRET)
    named = ["--user=alice", "--role=r1", "--issuer=iss", "--audience=aud"]
    secret = f"--secret-file={folder / 'secret'}"
    return CliRunner().invoke(main, ["token", *named, secret, *options])


def test_a_good_token_is_a_subject(verifier: Verifier) -> None:
    subject = verify(verifier, mint())

    assert (subject.id, subject.tenant, subject.roles) == ("alice", "t", ("r1", "r2"))
    assert (subject.issuer, subject.method) == ("shared-secret", "jwt")
    assert subject.token_id


def test_a_token_may_hold_groups_a_client_and_who_acts_for_its_user(verifier: Verifier) -> None:
    token = mint_with(groups=["g2", "g1"], azp="agent", act={"sub": "bot", "act": {"sub": "x"}})

    subject = verify(verifier, token)

    assert (subject.groups, subject.client_id, subject.actor) == (("g1", "g2"), "agent", "bot")


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"client_id": "b"}, ("b", ())),
        ({"azp": "a", "client_id": "b"}, ("a", ())),
        ({"scp": "x y"}, ("", ("x", "y"))),
        ({"scp": ["y", "x"]}, ("", ("x", "y"))),
        ({"scope": "z", "scp": "x"}, ("", ("z",))),
    ],
    ids=str,
)
def test_clients_and_scopes_have_other_names_too(
    verifier: Verifier, claims: dict[str, Any], expected: tuple[str, tuple[str, ...]]
) -> None:
    subject = verify(verifier, mint_with(**claims))

    assert (subject.client_id, subject.scopes) == expected


def test_a_cached_token_is_verified_without_a_wait(verifier: Verifier) -> None:
    token = mint()
    subject = verify(verifier, token)
    again = verifier.verify(token)

    with pytest.raises(StopIteration) as ended:
        again.send(None)

    assert ended.value.value is subject


def test_a_remembered_token_ends_with_its_time(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = mint(ttl_s=60)
    verify(verifier, token)

    later = datetime.now(UTC) + timedelta(seconds=61)
    monkeypatch.setattr("jwt.api_jwt.datetime", SimpleNamespace(now=lambda tz: later))
    monkeypatch.setattr("mcp_server.identity.subject.time", SimpleNamespace(time=later.timestamp))

    with pytest.raises(AuthenticationError, match="expired"):
        verify(verifier, token)


@pytest.mark.parametrize(
    ("claim", "value", "said"),
    [
        ("roles", "mcp:admin", "roles must be a list of strings"),
        ("roles", [1], "roles must be a list of strings"),
        ("tenant", "", "tenant must be a string of 1 to 256"),
        ("tenant", 5, "tenant must be a string"),
        ("sub", "a" * 257, "sub must be a string of 1 to 256"),
        ("sub", "a\nb", "cannot be printed"),
        ("roles", ["a\ud800"], "roles holds characters that cannot be printed"),
        ("scope", ["a"], "scope must be a string of scopes"),
        ("scope", "a\nb", "scope holds characters that cannot be printed"),
        ("aud", ["other"], "issued for another audience"),
        ("aud", ["aud", 5], "issued for another audience"),
        ("aud", {"aud": "aud"}, "issued for another audience"),
        ("aud", [], "lacks the claim aud"),
        ("exp", 10**400, f"exp must be a NumericDate: {SECONDS}"),
        ("exp", str(2**33), f"exp must be a NumericDate: {SECONDS}"),
        ("iat", False, f"iat must be a NumericDate: {SECONDS}"),
        ("iat", -(10**400), f"iat must be a NumericDate: {SECONDS}"),
        ("exp", float("inf"), f"exp, iat and nbf are {SECONDS}"),
        ("nbf", [], f"exp, iat and nbf are {SECONDS}"),
        ("iss", ["iss"], "an issuer that is not accepted"),
        ("iss", "other", "an issuer that is not accepted"),
        ("roles", ["a" * 1025], "at most 2000 items of 1024 characters"),
        ("roles", ["a"] * 2001, "at most 2000 items of 1024 characters|longer than 8192"),
        ("groups", "a", "groups must be a list of strings"),
        ("scp", 5, "scp must be a string of scopes"),
        ("azp", 5, "azp must be a string of 1 to 256"),
        ("act", "bot", "act must be an object with the claim sub"),
        ("act", {}, "lacks the claim act.sub"),
        ("act", {"sub": ["bot"]}, "act.sub must be a string"),
        ("_claim_names", {"groups": "src1"}, "the user is in too many groups"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_claim_of_the_wrong_form_is_named(
    verifier: Verifier, claim: str, value: object, said: str
) -> None:
    with pytest.raises(AuthenticationError, match=said):
        verify(verifier, mint_with(**{claim: value}))


@pytest.mark.parametrize("claim", ["exp", "iat", "iss", "aud", "sub", "roles", "tenant"])
def test_a_claim_that_is_missing_is_named(verifier: Verifier, claim: str) -> None:
    claims = {name: value for name, value in _good().items() if name != claim}

    with pytest.raises(AuthenticationError, match=f"the token lacks the claim {claim}"):
        verify(verifier, signed(json.dumps(claims)))


def test_a_token_of_many_brackets_is_refused(verifier: Verifier) -> None:
    with pytest.raises(AuthenticationError, match="not a well-formed JWT"):
        verify(verifier, signed("[" * 2500 + "]" * 2500))


@pytest.mark.parametrize("audience", [["aud"], ["other", "aud"]])
def test_a_token_may_be_for_several_audiences(verifier: Verifier, audience: list[str]) -> None:
    """RFC 7519, section 4.1.3."""
    assert verify(verifier, mint_with(aud=audience)).id == "alice"


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("", ()),
        ("mcp:read", ("mcp:read",)),
        (" ".join(["mcp:read"] * 100), ("mcp:read",) * 100),
    ],
    ids=["none", "one", "many"],
)
def test_a_scope_has_any_number_of_words(
    verifier: Verifier, scope: str, scopes: tuple[str, ...]
) -> None:
    assert verify(verifier, mint_with(scope=scope)).scopes == scopes


JSON_VALUES = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.integers(min_value=10**300, max_value=10**400)
    | strategies.floats()
    | strategies.text(max_size=20),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=200)
@given(
    changed=strategies.dictionaries(
        strategies.sampled_from(
            (
                *("exp", "iat", "nbf", "iss", "aud", "sub", "roles", "tenant", "scope", "jti"),
                *("groups", "azp", "act", "scp", "_claim_names"),
            )
        ),
        JSON_VALUES,
        max_size=3,
    )
)
def test_whatever_a_claim_is_the_token_is_believed_or_refused(
    changed: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    verifier = make_verifier(tmp_path_factory.mktemp("secret"))

    try:
        subject = verify(verifier, mint_with(**changed))
    except AuthenticationError:
        return

    assert time.time() < subject.expires_at <= time.time() + 3600


@pytest.mark.parametrize("ttl_s", [1, 3600])
def test_a_token_is_accepted_up_to_the_longest_lifetime(verifier: Verifier, ttl_s: int) -> None:
    assert verify(verifier, mint(ttl_s=ttl_s)).id == "alice"


@pytest.mark.parametrize("issued_before_s", [0, 7000])
def test_a_token_that_was_made_for_longer_is_refused_however_little_is_left(
    verifier: Verifier, issued_before_s: int
) -> None:
    token = mint(ttl_s=7200, now=time.time() - issued_before_s)

    with pytest.raises(AuthenticationError, match=r"made for 7200 seconds .* up to 3600"):
        verify(verifier, token)


def test_the_longest_lifetime_is_a_setting(tmp_path: Path) -> None:
    verifier = make_verifier(tmp_path, max_lifetime_s=600)

    assert verify(verifier, mint(ttl_s=600)).id == "alice"
    with pytest.raises(AuthenticationError, match="up to 600"):
        verify(verifier, mint(ttl_s=601))


def test_a_token_from_the_future_is_refused_beyond_the_leeway(tmp_path: Path) -> None:
    verifier = make_verifier(tmp_path, leeway_s=30)

    assert verify(verifier, mint(now=time.time() + 10)).id == "alice"
    with pytest.raises(AuthenticationError, match="not valid yet; check the clocks"):
        verify(verifier, mint(now=time.time() + 60))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ttl", "3601"), "--ttl 3601 is longer than the 3600 seconds that a server accepts"),
        (
            ("--ttl", "601", "--max-lifetime", "600"),
            "--ttl 601 is longer than the 600 seconds that a server accepts",
        ),
        (("--ttl", "86401"), "86401 is not in the range 1<=x<=86400"),
    ],
)
def test_the_command_makes_no_token_that_a_server_would_refuse(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    result = run_token(tmp_path, *options)

    assert result.exit_code != 0
    assert said in result.stderr
    assert result.stdout == ""


def test_the_command_makes_longer_tokens_for_a_server_that_accepts_them(tmp_path: Path) -> None:
    result = run_token(tmp_path, "--ttl", "7200", "--max-lifetime", "7200")

    claims = jwt.decode(result.stdout.strip(), SECRET, algorithms=["HS256"], audience="aud")
    assert claims["exp"] - claims["iat"] == 7200


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "eyJ.eyJ.x", "a" * 9000])
def test_what_is_not_a_token_is_refused(verifier: Verifier, token: str) -> None:
    with pytest.raises(AuthenticationError):
        verify(verifier, token)


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_an_access_token_may_name_its_type(verifier: Verifier, kind: str) -> None:
    assert verify(verifier, signed(json.dumps(_good()), typ=kind)).id == "alice"


@pytest.mark.parametrize(
    "kind", ["id+jwt", "logout+jwt", "dpop+jwt", "oauth-id-jag+jwt", "JOSE", 7]
)
def test_a_token_of_another_type_is_refused(verifier: Verifier, kind: Any) -> None:
    with pytest.raises(AuthenticationError, match=r"typ must be JWT or at\+jwt|well-formed"):
        verify(verifier, signed(json.dumps(_good()), typ=kind))


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + "=",
        lambda token: token.replace(".", "=.", 1),
        lambda token: token + "\n",
        lambda token: token[:-1] + "+",
        lambda token: token + ".x",
    ],
    ids=["padding at the end", "padding of the header", "a line", "base64", "a fourth part"],
)
def test_a_token_has_one_text(verifier: Verifier, change: Any) -> None:
    with pytest.raises(AuthenticationError):
        verify(verifier, change(mint()))


def test_another_algorithm_is_refused(verifier: Verifier) -> None:
    claims = jwt.decode(mint(), SECRET, algorithms=["HS256"], audience="aud")
    secret = SECRET * 2

    with pytest.raises(AuthenticationError, match="algorithm"):
        verify(verifier, jwt.encode(claims, secret, algorithm="HS512"))


def test_a_refusal_does_not_repeat_the_token(verifier: Verifier) -> None:
    token = mint(audience="elsewhere")

    with pytest.raises(AuthenticationError) as caught:
        verify(verifier, token)

    assert token not in str(caught.value)


def test_the_memory_is_bounded(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_server.identity.verifier._CACHE_SIZE", 2)

    for number in range(4):
        verify(verifier, mint(user=f"u{number}"))

    assert len(verifier._verified) == 2


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short")

    with pytest.raises(SettingsError, match="shorter than 32 bytes"):
        SharedSecret(JwtSettings(secret=Secret(file=tmp_path / "secret"), issuer="i", audience="a"))
