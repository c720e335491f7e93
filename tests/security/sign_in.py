"""Attacks on `POST /auth/token`: guesses, LDAP injection, and bodies that are read in several ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.integration.directories import PASSWORD
from tests.security.attack import Answer, Attack, Request

__all__ = ["PATH", "attacks"]

PATH = "/auth/token"
_REFUSED = Answer(400, "invalid_grant")
_INVALID = Answer(400, "invalid_request")
_UNSUPPORTED = Answer(415, "unsupported_media_type")

_INJECTION = "the name is escaped in filters (RFC 4515) and in distinguished names (RFC 4514)"
_SAME = "all refusals have one answer, so that nobody learns who exists"
_FORM = "the body is an object with two strings and nothing else"

_CREDENTIALS: tuple[tuple[str, str, Any, Any, Answer], ...] = (
    ("a wrong password", _SAME, "alice", "guess", _REFUSED),
    ("a user who does not exist", _SAME, "nobody-of-this-name", "guess", _REFUSED),
    ("the name of the service account", _SAME, "mcp-bind", "guess", _REFUSED),
    *(
        (f"the name {name!r}", _INJECTION, name, PASSWORD, _REFUSED)
        for name in (
            "*",
            "alice*",
            "alic?",
            "*)(uid=*",
            "alice)(|(uid=*",
            "alice)(objectClass=*))(&(uid=alice",
            "admin)(!(&(1=0",
            "\\2a",
            "alice\x00",
            "alice,ou=people,dc=example,dc=com",
            "uid=alice,ou=people,dc=example,dc=com",
            "alice\n",
            "\u202ealice",
            "a" * 4000,
        )
    ),
    ("a password with NUL", "a directory may end it there", "alice", f"{PASSWORD}\x00", _REFUSED),
    ("a longer password", "no directory may cut it", "alice", PASSWORD + "x" * 4000, _REFUSED),
    ("an empty password", "a bind without a password is anonymous", "alice", "", _INVALID),
    ("an empty name", "a bind without a name is anonymous", "", PASSWORD, _INVALID),
    ("a blank name", "a bind without a name is anonymous", " \t", PASSWORD, _INVALID),
    *(
        (f"{value!r} as the password", _FORM, "alice", value, _INVALID)
        for value in (None, 7, True, [PASSWORD], {"$ne": ""})
    ),
    ("a list as the name", _FORM, ["alice"], PASSWORD, _INVALID),
)

_BODIES: tuple[tuple[str, Any, Answer], ...] = (
    ("a further member", {"username": "a", "password": "b", "roles": ["mcp:admin"]}, _INVALID),
    ("a grant type", {"grant_type": "client_credentials"}, _INVALID),
    ("no password", {"username": "alice"}, _INVALID),
    ("a list", [{"username": "alice", "password": "b"}], _INVALID),
    ("a text", "alice", _INVALID),
    ("a name twice", b'{"username":"a","username":"b","password":"c"}', _INVALID),
    ("a lone surrogate", b'{"username":"\\ud800","password":"c"}', _INVALID),
    ("no JSON", b"username=alice&password=b", _INVALID),
    ("10 KB", {"username": "alice", "password": "x" * 10_000}, Answer(413, "invalid_request")),
)


def attacks() -> Iterator[Attack]:
    """Yield the attacks on sign-ins with a password."""
    for name, because, user, password, refused in _CREDENTIALS:
        body = {"username": user, "password": password}
        request = Request(PATH, body=body, token=None)
        yield Attack(f"sign-in: {name[:60]}", because, request, refused)
    for name, document, refused in _BODIES:
        request = Request(PATH, body=document, token=None)
        yield Attack(f"sign-in: a body with {name}", _FORM, request, refused)
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        request = Request(PATH, headers={"Content-Type": kind}, body=b"{}", token=None)
        yield Attack(f"sign-in: {kind}", "pages of other sites may send it", request, _UNSUPPORTED)
    request = Request(f"{PATH}?username=alice&password=x", method="GET", token=None)
    yield Attack(
        "sign-in: a password in the query",
        "addresses are logged",
        request,
        Answer(405, "method_not_allowed"),
    )
    request = Request(
        PATH,
        headers={"Origin": "https://evil.test"},
        body={"username": "alice", "password": "guess"},
        token=None,
    )
    yield Attack(
        "sign-in: by a page of another site",
        "pages of other sites make no requests",
        request,
        Answer(403, "foreign_origin"),
    )
