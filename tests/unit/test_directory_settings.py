"""The settings of a directory, and the accounts that may not be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mcp_server.identity.directory.accounts import fault_of
from mcp_server.identity.directory.connection import Entry
from mcp_server.settings import DirectorySettings

_NOW = 1_800_000_000.0


def _settings(**changes: Any) -> DirectorySettings:
    document: dict[str, Any] = {
        "servers": ["ldaps://dc1.example.com"],
        "bind_dn": "cn=mcp,dc=example,dc=com",
        "bind_password": {"file": Path("/run/password")},
        "users": {"base": "dc=example,dc=com", "attributes": ["uid"], "id": "uid"},
        "groups": {"base": "dc=example,dc=com"},
        "tenant": {"value": "default"},
    }
    return DirectorySettings.model_validate({**document, **changes})


def test_both_ways_to_tls_are_taken() -> None:
    servers = ("ldaps://dc1.example.com", "ldap://[2001:db8::1]:3389/")

    assert _settings(servers=servers).servers == servers


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"servers": []}, "at least 1 item"),
        ({"servers": ["https://dc1"]}, "must begin with ldaps://"),
        ({"servers": ["dc1.example.com"]}, "must begin with ldaps://"),
        ({"servers": ["ldaps://"]}, "must be ldaps://HOST"),
        ({"servers": ["ldaps://dc1/dc=example"]}, "must be ldaps://HOST"),
        ({"servers": ["ldaps://dc1:x"]}, "Port could not be cast"),
        ({"servers": ["ldaps://me@dc1"]}, "holds a user"),
        ({"bind_dn": ""}, "at least 1 character"),
        ({"tenant": {}}, "exactly one of value and attribute"),
        ({"tenant": {"value": "a", "attribute": "o"}}, "exactly one of value and attribute"),
        ({"users": {"base": "x", "attributes": ["uid)("], "id": "uid"}}, "should match pattern"),
        ({"users": {"base": "x", "attributes": [], "id": "uid"}}, "at least 1 item"),
    ],
)
def test_a_fault_says_what_is_accepted(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        _settings(**changes)


def _fault(**attributes: str) -> str | None:
    values = {name.replace("_", "-").lower(): (text.encode(),) for name, text in attributes.items()}
    return fault_of(Entry("cn=x", values), _NOW)


def _ticks(unix: float) -> str:
    """Return a time as Active Directory writes it."""
    return str(int((unix + 11_644_473_600) * 10_000_000))


@pytest.mark.parametrize(
    ("attributes", "fault"),
    [
        ({}, None),
        ({"userAccountControl": "512"}, None),
        ({"userAccountControl": "514"}, "account_disabled"),
        ({"userAccountControl": "many"}, "account_unreadable"),
        ({"lockoutTime": "0"}, None),
        ({"lockoutTime": _ticks(_NOW - 10)}, "account_locked"),
        # The lockout is over: the server knows for how long it locks.
        ({"lockoutTime": _ticks(_NOW - 10), "msDS_User_Account_Control_Computed": "0"}, None),
        ({"msDS_User_Account_Control_Computed": "16"}, "account_locked"),
        ({"msDS_User_Account_Control_Computed": "8388608"}, "password_expired"),
        ({"accountExpires": "0"}, None),
        ({"accountExpires": "9223372036854775807"}, None),
        ({"accountExpires": _ticks(_NOW + 1)}, None),
        ({"accountExpires": _ticks(_NOW - 1)}, "account_expired"),
        ({"pwdAccountLockedTime": "000001010000Z"}, "account_locked"),
        ({"pwdReset": "TRUE"}, "password_must_change"),
        ({"pwdReset": "FALSE"}, None),
        ({"shadowExpire": "-1"}, None),
        ({"shadowExpire": str(int(_NOW / 86_400) + 1)}, None),
        ({"shadowExpire": str(int(_NOW / 86_400))}, "account_expired"),
    ],
)
def test_an_account_that_may_not_be_used_is_told_by_its_attributes(
    attributes: dict[str, str], fault: str | None
) -> None:
    assert _fault(**attributes) == fault


def test_values_that_are_not_text_are_left_out() -> None:
    entry = Entry("cn=x", {"cn": (b"\xff", b"name")})

    assert entry.texts("CN") == ("name",)
    assert not entry.text("mail")
