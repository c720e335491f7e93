"""`identity.directory`: an LDAP directory, whose users sign in with their password."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mcp_server.settings.model import Model
from mcp_server.settings.secret import Secret

__all__ = ["DirectorySettings"]

AttributeName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
"""The name of an LDAP attribute (RFC 4512 section 1.4)."""


class DirectoryUsersSettings(Model):
    """Where the directory's users are, and by which of their attributes they are known."""

    base: Annotated[str, Field(min_length=1)]
    """DN below which users are searched."""
    attributes: Annotated[tuple[AttributeName, ...], Field(min_length=1, max_length=5)]
    """Attributes that may hold the name that a user signs in with; exactly one user must match."""
    id: AttributeName
    """Attribute whose value is the subject's id."""


class DirectoryGroupsSettings(Model):
    """How a user's groups are found."""

    base: Annotated[str, Field(min_length=1)]
    """DN below which groups are searched. Whoever may create groups there can grant roles."""
    name: AttributeName = "cn"
    """Attribute whose value is a group's name in the policy data."""
    prefix: str = ""
    """Only groups whose names begin with this are kept, so that tokens stay short; empty: all."""
    member: AttributeName = "member"
    """Attribute of a group that holds the DNs of its members."""
    nested: Literal["in_chain", "walk", "none"] = "walk"
    """Groups in groups. in_chain: Active Directory finds them in one search (its rule
    LDAP_MATCHING_RULE_IN_CHAIN); walk: one search for each level; none: direct groups only."""
    max_depth: Annotated[int, Field(ge=1, le=20)] = 5
    """Levels of groups that are followed with nested: walk, the direct groups included."""


class DirectoryTenantSettings(Model):
    """The tenant of the directory's users: one for all, or the value of an attribute of each."""

    value: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    attribute: AttributeName | None = None

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if (self.value is None) == (self.attribute is None):
            raise ValueError("needs exactly one of value and attribute")
        return self


class DirectorySettings(Model):
    """An LDAP directory, whose users exchange their password for a token (`POST /auth/token`)."""

    servers: Annotated[tuple[str, ...], Field(min_length=1, max_length=10)]
    """URLs in the order of preference: `ldaps://HOST[:PORT]` (TLS from the start, port 636), or
    `ldap://HOST[:PORT]` (StartTLS, port 389). No password is sent without TLS."""
    ca: Path | None = None
    """CA of the servers' certificates; None: the system's authorities."""
    bind_dn: Annotated[str, Field(min_length=1)]
    """The account of this server, which may search users and groups."""
    bind_password: Secret
    users: DirectoryUsersSettings
    groups: DirectoryGroupsSettings
    tenant: DirectoryTenantSettings
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds to connect to a server, and as many to sign a user in there; then the next is tried."""
    pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    """Maximum connections of this node, and so of sign-ins at the same time."""

    @field_validator("servers")
    @classmethod
    def _are_urls(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            url = urlsplit(value)
            if url.scheme not in ("ldaps", "ldap"):
                raise ValueError("must begin with ldaps:// (TLS) or ldap:// (StartTLS)")
            _ = url.port  # raises ValueError if the port is invalid
            if not url.hostname or url.path not in ("", "/") or url.query or url.fragment:
                raise ValueError("must be ldaps://HOST, ldap://HOST, or one of them with :PORT")
            if url.username is not None:
                raise ValueError("holds a user, which belongs into bind_dn and bind_password")
        return values
