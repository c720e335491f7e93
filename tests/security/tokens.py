"""Attacks on authentication: tokens that are missing, forged, stolen from elsewhere or malformed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.integration.nodes import AUDIENCE, ISSUER, JWT_SECRET
from tests.security.attack import Answer, Attack, Request, message, token

__all__ = ["attacks"]

_INVALID = Answer(401, "invalid_token")
_ABSENT = object()
_RSA_PUBLIC = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)


def _part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _signed(
    *,
    key: bytes = JWT_SECRET.encode(),
    header: Any = None,
    payload: Any = None,
    without: str = "",
    **claims: Any,
) -> str:
    """Return a token, signed by HMAC-SHA-256 whatever its header says.

    Args:
        payload: in place of the claims.
        without: name of a claim to leave out.
    """
    now = int(time.time())
    whole = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "attacker",
        "iat": now,
        "exp": now + 600,
        "roles": ["mcp:admin"],
        "tenant": "default",
        **claims,
    }
    header = {"alg": "HS256", "typ": "JWT", **(header or {})}
    signed = (
        f"{_part({name: value for name, value in header.items() if value is not _ABSENT})}."
        f"{_part(payload or {name: value for name, value in whole.items() if name != without})}"
    )
    return f"{signed}.{_part(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def _unsigned(algorithm: str) -> str:
    return _signed(header={"alg": algorithm}).rpartition(".")[0] + "."


def _altered(change: Callable[[str, str, str], str]) -> Callable[[], str]:
    def make() -> str:
        header, payload, signature = token().split(".")
        return change(header, payload, signature)

    return make


_NOW = "the token is valid by the server's clock"
_FORGED = "only the issuer's secret makes valid signatures"
_ALGORITHM = "the algorithm is pinned to HS256"
_HEADER = "a token cannot say which key verifies it"
_CLAIMS = "a subject has an id, a tenant and roles of the right types"
_FORM = "there is one text for one token (RFC 7515 section 2)"

# What is tried, why it must be refused, what makes the token.
_TOKENS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    *(
        (
            f"a token without a signature, alg {algorithm}",
            _ALGORITHM,
            lambda a=algorithm: _unsigned(a),
        )
        for algorithm in ("none", "None", "NONE", "nOnE", "", "HS256")
    ),
    *(
        (
            f"a signature by HMAC under alg {algorithm}",
            _ALGORITHM,
            lambda a=algorithm: _signed(header={"alg": a}),
        )
        for algorithm in (
            "HS384",
            "HS512",
            "RS256",
            "ES256",
            "EdDSA",
            "PS256",
            "hs256",
            "A128KW",
            "dir",
        )
    ),
    ("a token without alg", _ALGORITHM, lambda: _signed(header={"alg": _ABSENT})),
    ("alg as a list", _ALGORITHM, lambda: _signed(header={"alg": ["HS256"]})),
    ("an empty key", _FORGED, lambda: _signed(key=b"")),
    ("a guessed key", _FORGED, lambda: _signed(key=b"secret")),
    ("another secret of the right length", _FORGED, lambda: _signed(key=b"x" * 40)),
    ("an RSA public key as the secret", _FORGED, lambda: _signed(key=_RSA_PUBLIC)),
    ("the secret in hexadecimal", _FORGED, lambda: _signed(key=JWT_SECRET.encode().hex().encode())),
    *(
        (
            f"a key named by {name}",
            _HEADER,
            lambda n=name, v=value: _signed(key=b"x" * 40, header={n: v}),
        )
        for name, value in {
            "kid": "../../../../dev/null",
            "jku": "https://evil.test/jwks.json",
            "x5u": "https://evil.test/cert.pem",
            "jwk": {"kty": "oct", "k": _part(b"x" * 40)},
            "x5c": ["MIIB"],
        }.items()
    ),
    ("kid with SQL", _HEADER, lambda: _signed(key=b"x" * 40, header={"kid": "x' UNION SELECT 'x"})),
    (
        "a critical extension that is not understood",
        "RFC 7515 section 4.1.11",
        lambda: _signed(header={"crit": ["exp-in"], "exp-in": 1}),
    ),
    *(
        (
            f"typ {kind}",
            "a token for another purpose is no access token",
            lambda k=kind: _signed(header={"typ": k}),
        )
        for kind in ("id+jwt", "logout+jwt", "dpop+jwt", "oauth-id-jag+jwt", "JWE", "jwt-bearer")
    ),
    (
        "an expired token",
        _NOW,
        lambda: _signed(exp=int(time.time()) - 3600, iat=int(time.time()) - 7200),
    ),
    ("a token that is not valid yet", _NOW, lambda: _signed(nbf=int(time.time()) + 3600)),
    (
        "a token from the future",
        _NOW,
        lambda: _signed(iat=int(time.time()) + 3600, exp=int(time.time()) + 7000),
    ),
    (
        "a token that lives for a year",
        "a lifetime is bounded",
        lambda: _signed(exp=int(time.time()) + 31_536_000),
    ),
    ("exp in the year 10000", "a lifetime is bounded", lambda: _signed(exp=10**12)),
    ("exp as a text", _CLAIMS, lambda: _signed(exp=str(int(time.time()) + 600))),
    ("exp as true", _CLAIMS, lambda: _signed(exp=True)),
    ("exp as null", _CLAIMS, lambda: _signed(exp=None)),
    ("exp as an infinite number", _CLAIMS, lambda: _signed(payload=b'{"exp": Infinity}')),
    ("exp of 400 digits", _CLAIMS, lambda: _signed(exp=10**400)),
    ("nbf as a text", _CLAIMS, lambda: _signed(nbf="0")),
    *(
        (f"no {claim}", _CLAIMS, lambda c=claim: _signed(without=c))
        for claim in ("iss", "aud", "sub", "iat", "exp", "roles", "tenant")
    ),
    *(
        (
            f"aud {audience!r}",
            "a token for another service is not for this one (RFC 8707)",
            lambda a=audience: _signed(aud=a),
        )
        for audience in cast(
            "tuple[Any, ...]",
            (
                "https://other.test/mcp",
                AUDIENCE + "/",
                AUDIENCE.upper(),
                "",
                "*",
                [],
                ["https://other.test"],
                {},
                None,
                1,
            ),
        )
    ),
    *(
        (f"iss {issuer!r}", "another issuer is not trusted", lambda i=issuer: _signed(iss=i))
        for issuer in ("https://evil.test", ISSUER + "/", ISSUER + ".evil.test", "", [ISSUER], None)
    ),
    *(
        (f"sub {str(subject)[:20]!r}", _CLAIMS, lambda s=subject: _signed(sub=s))
        for subject in (
            "",
            0,
            None,
            ["root"],
            {"id": "root"},
            "x" * 257,
            "root\n",
            "ro\u202eot",
            "ro\0ot",
        )
    ),
    *(
        (f"tenant {str(tenant)[:20]!r}", _CLAIMS, lambda t=tenant: _signed(tenant=t))
        for tenant in ("", None, 1, ["default"], "x" * 257, "default\n")
    ),
    *(
        (f"roles {roles!r}", _CLAIMS, lambda r=roles: _signed(roles=r))
        for roles in (
            "mcp:admin",
            {"mcp:admin": True},
            [["mcp:admin"]],
            [None],
            ["mcp:admin\n"],
            ["mcp:admin\u200b"],
            None,
            True,
        )
    ),
    ("scope as a list", _CLAIMS, lambda: _signed(scope=["mcp:admin"])),
    ("jti as a number", _CLAIMS, lambda: _signed(jti=1)),
    ("a signature with padding", _FORM, _altered(lambda h, p, s: f"{h}.{p}.{s}=")),
    (
        "a signature in the other alphabet",
        _FORM,
        lambda: _signed().rpartition(".")[0] + "." + "+/" * 21 + "A",
    ),
    ("a signature that was cut off", _FORGED, _altered(lambda h, p, s: f"{h}.{p}.{s[:-4]}")),
    (
        "a payload of another token",
        _FORGED,
        _altered(lambda h, p, s: f"{h}.{_signed().split('.')[1]}.{s}"),
    ),
    ("text after the token", _FORM, _altered(lambda h, p, s: f"{h}.{p}.{s}.x")),
    ("a token in five parts (JWE)", _FORM, _altered(lambda h, p, s: f"{h}.{p}.{s}.{s}.{s}")),
    ("a token in two parts", _FORM, _altered(lambda h, p, _: f"{h}.{p}")),
    ("a payload that is a list", _FORM, lambda: _signed(payload=["mcp:admin"])),
    ("a payload that is no JSON", _FORM, lambda: _signed(payload=b"{")),
    ("a payload that is not UTF-8", _FORM, lambda: _signed(payload=b"\xff\xfe")),
    ("a header that is a text", _FORM, lambda: f"{_part('HS256')}.{_part({})}.{_part(b'x')}"),
    ("a token of 9 KB", "its length is bounded", lambda: _signed(note="x" * 9000)),
    ("an opaque text", "it is no token of a known form", lambda: "0123456789abcdef"),
    ("an API key that does not exist", "it was never created", lambda: "emcp_" + "A" * 48),
)

_LISTED = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
_NO_TOKEN = Answer(401, "unauthorized")
_NOT_BEARER = Answer(401, "invalid_request")


def _without_a_token() -> Iterator[Attack]:
    because = "every request needs a bearer token in the Authorization header"
    for path, method in (
        ("/mcp", "POST"),
        ("/tools", "GET"),
        ("/resources", "GET"),
        ("/tools/cmdb_query_assets/execute", "POST"),
        ("/tools/absent/execute", "POST"),
    ):
        body = _LISTED if method == "POST" else None
        request = Request(path, method=method, body=body, token=None)
        yield Attack(f"{method} {path} without a token", because, request, _NO_TOKEN)
    for name, path, headers in (
        ("in the query", "/tools?access_token=%s", {}),
        ("in a cookie", "/tools", {"Cookie": "access_token=%s"}),
        ("in X-Api-Key", "/tools", {"X-Api-Key": "%s"}),
        ("in Proxy-Authorization", "/tools", {"Proxy-Authorization": "Bearer %s"}),
    ):
        valid = token()
        request = Request(
            path.replace("%s", valid),
            method="GET",
            headers={key: value.replace("%s", valid) for key, value in headers.items()},
            token=None,
        )
        yield Attack(f"a token {name}", because, request, _NO_TOKEN)
    for scheme, refused in (
        ("Basic YWRtaW46YWRtaW4=", _NOT_BEARER),
        ("Digest username=admin", _NOT_BEARER),
        ("Bearer", _NOT_BEARER),
        ("token x", _NOT_BEARER),
        ("Bearer a b", _INVALID),
    ):
        request = Request("/tools", method="GET", headers={"Authorization": scheme}, token=None)
        yield Attack(f"Authorization: {scheme}", because, request, refused)


def attacks() -> Iterator[Attack]:
    """Yield the attacks on authentication; tokens are tried over MCP and REST by turns."""
    yield from _without_a_token()
    for number, (name, because, make) in enumerate(_TOKENS):
        over_mcp = message("tools/list", by=make)
        over_rest = Request("/tools", method="GET", token=make)
        yield Attack(name, because, over_rest if number % 2 else over_mcp, _INVALID)
