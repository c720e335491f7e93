"""The form of API keys."""

from __future__ import annotations

import re

import pytest

from mcp_server.identity.api_keys.key import ApiKey, new_key, parse_key
from mcp_server.redaction import REDACTED, redact_text


def test_a_new_key_is_recognised_and_reads_back() -> None:
    key = new_key()

    assert re.fullmatch(r"emcp_[a-z2-7]{12}_[a-z2-7]{59}", key.text)
    assert parse_key(key.text) == key


def test_no_two_keys_are_alike() -> None:
    keys = [new_key() for _ in range(100)]

    assert len({key.id for key in keys}) == len({key.secret_hash for key in keys}) == 100


def test_what_is_stored_does_not_hold_the_secret() -> None:
    key = new_key()

    assert len(key.secret_hash) == 32
    assert key.secret.encode() not in key.secret_hash
    assert key.secret_hash == ApiKey("another-id", key.secret).secret_hash


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "a",
        lambda text: text.upper(),
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text.replace("emcp_", "emcq_"),
        lambda text: text[:20] + ("a" if text[20] != "a" else "b") + text[21:],
        lambda _: "emcp_",
        lambda _: "",
    ],
)
def test_a_mistyped_key_is_none(change: object) -> None:
    assert callable(change)
    assert parse_key(change(new_key().text)) is None


def test_a_key_is_redacted_wherever_it_stands() -> None:
    key = new_key().text

    assert key not in redact_text(f"curl -H 'X: {key}' failed")
    assert REDACTED in redact_text(f"curl -H 'X: {key}' failed")
