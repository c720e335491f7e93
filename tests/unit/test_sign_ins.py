"""Names and credentials of attempts to sign in, as they are counted and recorded."""

from __future__ import annotations

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.gate.sign_ins import canonical_user
from mcp_server.identity.api_keys.key import new_key
from mcp_server.identity.claimed import claimed_by

_SECRET = "a-secret-of-the-unit-tests-only-0123456789"


@pytest.mark.parametrize(
    "name",
    ["alice smith", "ALICE SMITH", "  alice   smith ", "alíce smith", "\uff41lice smith"],
)
def test_spellings_that_a_directory_takes_for_one_user_are_counted_together(name: str) -> None:
    assert canonical_user(name) == "alice smith"


def test_different_users_are_counted_apart() -> None:
    assert len({canonical_user(name) for name in ("alice", "alicia", "alice2", "a lice")}) == 4


@given(st.text(max_size=50))
def test_the_text_that_is_counted_has_one_form(name: str) -> None:
    once = canonical_user(name)

    assert canonical_user(once) == once
    assert canonical_user(f" {name} ") == once


def test_a_token_tells_whom_it_claims_without_its_signature() -> None:
    token = jwt.encode(
        {"iss": "https://i", "sub": "alice", "jti": "1", "roles": ["mcp:admin"], "aud": "x"},
        _SECRET,
    )

    claimed = claimed_by(token)

    assert claimed == {"iss": "https://i", "sub": "alice", "jti": "1"}
    assert token.split(".")[2] not in str(claimed)


def test_an_api_key_tells_its_id_and_no_secret() -> None:
    key = new_key()

    claimed = claimed_by(key.text)

    assert claimed == {"iss": "api-keys", "jti": key.id}
    assert key.secret not in str(claimed)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "garbage",
        "a.b.c",
        "e30.e30.",
        "e30." + "W" * 5000 + ".x",
        "x" * 100_000,
        jwt.encode({"sub": "a\nb", "iss": "\x00"}, _SECRET),
    ],
)
def test_what_claims_nothing_readable_is_recorded_as_nothing(token: str) -> None:
    assert claimed_by(token) == {}


def test_a_long_claim_is_cut() -> None:
    token = jwt.encode({"sub": "a" * 3000}, _SECRET)

    assert claimed_by(token) == {"sub": "a" * 256}
