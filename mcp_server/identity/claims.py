"""The claims of a token or of an introspection response, and the subject that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_server.identity.subject import AuthenticationError, Subject

__all__ = ["ClaimPaths", "numeric_date", "require_lifetime", "subject_of"]

_MAX_TEXT_LENGTH = 256
_MAX_ITEM_LENGTH = 1024
_MAX_ITEMS = 2000
_LATEST = 253_402_300_799  # the last second of the year 9999

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClaimPaths:
    """Where a subject's attributes are: the keys from the outermost object inwards.

    Attributes:
        groups: None: the groups of the issuer are not read.
        client: None: `azp` (OpenID Connect Core section 2), or else `client_id` (RFC 9068 section 2.2).
    """

    subject: Path = ("sub",)
    tenant: Path = ("tenant",)
    roles: Path = ("roles",)
    groups: Path | None = ("groups",)
    client: Path | None = None


def subject_of(
    claims: Mapping[str, Any],
    paths: ClaimPaths,
    *,
    issuer: str,
    tenant: str | None,
    method: str,
    expires_at: float,
    issued_at: float,
) -> Subject:
    """Return the subject that claims describe.

    Args:
        issuer: configured name of the issuer.
        tenant: the tenant of all subjects of the issuer; None: a claim has it.
        method: see `Subject`.
        expires_at, issued_at: Unix times in seconds.

    Raises:
        AuthenticationError: a claim is missing, has the wrong type, or is too long.
    """
    certificate, key = _confirmation(claims)
    return Subject(
        id=_text(claims, paths.subject),
        tenant=_text(claims, paths.tenant) if tenant is None else tenant,
        roles=_texts(claims, paths.roles),
        scopes=_scopes(claims),
        groups=() if paths.groups is None else _groups(claims, paths.groups),
        token_id=_optional_text(claims, ("jti",)),
        expires_at=expires_at,
        issued_at=issued_at,
        issuer=issuer,
        client_id=_client(claims, paths.client),
        actor=_actor(claims),
        method=method,
        bound_certificate=certificate,
        bound_key=key,
    )


def require_lifetime(issued_at: float, expires_at: float, max_lifetime_s: int) -> None:
    """Refuse a token whose lifetime, from iat to exp in Unix seconds, is longer than accepted.

    Raises:
        AuthenticationError: the message has both lifetimes.
    """
    if (lifetime_s := expires_at - issued_at) > max_lifetime_s:
        raise AuthenticationError(
            f"the token is made for {lifetime_s:.0f} seconds (from iat to exp); "
            f"accepted are up to {max_lifetime_s}"
        )


def numeric_date(claims: Mapping[str, Any], name: str) -> float:
    """Return the value of a NumericDate claim, in seconds since 1970 (RFC 7519 section 2).

    Raises:
        AuthenticationError: the value is something else.
    """
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise AuthenticationError(
            f"the claim {name} must be a NumericDate: "
            "a number of seconds since 1970, no later than the year 9999"
        )
    return float(value)


def _at(claims: Mapping[str, Any], path: Path) -> Any:
    """Return the value at a path; None: there is none."""
    value: Any = claims
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def _text(claims: Mapping[str, Any], path: Path) -> str:
    name, value = ".".join(path), _at(claims, path)
    if value is None:
        raise AuthenticationError(f"the token lacks the claim {name}")
    if not isinstance(value, str) or not value or len(value) > _MAX_TEXT_LENGTH:
        raise AuthenticationError(
            f"the claim {name} must be a string of 1 to {_MAX_TEXT_LENGTH} characters"
        )
    _require_printable(name, value)
    return value


def _optional_text(claims: Mapping[str, Any], path: Path) -> str:
    return "" if _at(claims, path) is None else _text(claims, path)


def _texts(claims: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    name, value = ".".join(path), _at(claims, path)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise AuthenticationError(f"the claim {name} must be a list of strings")
    if len(value) > _MAX_ITEMS or any(len(item) > _MAX_ITEM_LENGTH for item in value):
        raise AuthenticationError(
            f"the claim {name} must have at most {_MAX_ITEMS} items of {_MAX_ITEM_LENGTH} characters"
        )
    for item in value:
        _require_printable(name, item)
    return tuple(sorted(set(value)))


def _groups(claims: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    # Entra ID leaves out the groups of a user who is in too many ("groups overage"), and names a source
    # (OpenID Connect Core section 5.6.2) in their place. The user would have too few rights.
    distributed = claims.get("_claim_names")
    if isinstance(distributed, dict) and path[0] in distributed:
        raise AuthenticationError(
            f"the token does not hold the claim {path[0]}, because the user is in too many groups; "
            "let the issuer send only the groups that are assigned to the application, or app roles"
        )
    return _texts(claims, path)


def _scopes(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the scopes: `scope` (RFC 8693 section 4.2), or else `scp`, as Entra ID and Okta have it.

    Some issuers write "" for no scopes.
    """
    name = "scope" if "scope" in claims else "scp"
    value = claims.get(name, "")
    if name == "scp" and isinstance(value, list):
        return _texts(claims, ("scp",))
    if not isinstance(value, str):
        raise AuthenticationError(
            f"the claim {name} must be a string of scopes with spaces between"
        )
    _require_printable(name, value)
    return tuple(value.split())


def _client(claims: Mapping[str, Any], path: Path | None) -> str:
    if path is not None:
        return _optional_text(claims, path)
    return _optional_text(claims, ("azp",)) or _optional_text(claims, ("client_id",))


def _actor(claims: Mapping[str, Any]) -> str:
    """Return the current actor; earlier ones, nested in it, are for information (RFC 8693, 4.1)."""
    if "act" not in claims:
        return ""
    if not isinstance(claims["act"], dict):
        raise AuthenticationError("the claim act must be an object with the claim sub")
    return _text(claims, ("act", "sub"))


def _confirmation(claims: Mapping[str, Any]) -> tuple[str, str]:
    """Return the thumbprints of the certificate and of the key that a token is bound to (RFC 7800).

    A token that is bound in another way is refused: nothing here could tell a thief from its owner.
    """
    if "cnf" not in claims:
        return "", ""
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or not confirmation:
        raise AuthenticationError("the claim cnf must be an object with x5t#S256 or jkt")
    if confirmation.keys() - {"x5t#S256", "jkt"}:
        raise AuthenticationError(
            "the token is bound to a key in a way that is not supported here; accepted members of cnf "
            "are x5t#S256 and jkt"
        )
    certificate, key = (
        _text(claims, ("cnf", name)) if name in confirmation else "" for name in ("x5t#S256", "jkt")
    )
    return certificate, key


def _require_printable(name: str, text: str) -> None:
    if not text.isprintable():
        raise AuthenticationError(f"the claim {name} holds characters that cannot be printed")
