"""`identity`: the issuers whose tokens are accepted, and how their claims are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, HttpUrl, field_validator, model_validator

from mcp_server.settings.directory import DirectorySettings
from mcp_server.settings.model import Model, Seconds, is_loopback
from mcp_server.settings.secret import Secret

__all__ = [
    "API_KEYS",
    "CLIENT_CERTIFICATES",
    "DIRECTORY",
    "MAX_LIFETIME_S",
    "SHARED_SECRET",
    "ClaimPath",
    "ClaimsSettings",
    "ClientCertificatesSettings",
    "IdentitySettings",
    "IntrospectionSettings",
    "IssuerSettings",
    "JwtSettings",
]

# The maximum of max_lifetime_s: one day.
MAX_LIFETIME_S = 86_400

SHARED_SECRET = "shared-secret"  # noqa: S105 - a name
"""Name of the issuer that `identity.jwt` describes, in the policy's input and data."""

DIRECTORY = "directory"
"""Name of the issuer of the tokens that users of `identity.directory` get for their password."""

API_KEYS = "api-keys"
"""Name of the issuer of API keys (`mcpctl apikey`)."""

CLIENT_CERTIFICATES = "client-certificates"
"""Name of the issuer of clients that show a certificate and no token."""

Text = Annotated[str, Field(min_length=1, max_length=1024)]
Leeway = Annotated[float, Field(ge=0, le=300)]
Lifetime = Annotated[int, Field(ge=60, le=MAX_LIFETIME_S)]


def _path(value: Any) -> Any:
    return value.split(".") if isinstance(value, str) else value


ClaimPath = Annotated[
    Annotated[tuple[Text, ...], Field(min_length=1, max_length=8)],
    BeforeValidator(_path, json_schema_input_type=str | list[str]),
]
"""Where a claim is: `realm_access.roles`, or a list of keys for names that contain a dot."""


class JwtSettings(Model):
    """Tokens signed with a shared secret (RFC 7519, HS256); their issuer's name is `shared-secret`."""

    secret: Secret
    issuer: str
    audience: str
    algorithms: tuple[Literal["HS256"], ...] = ("HS256",)
    leeway_s: Leeway = 30
    max_lifetime_s: Lifetime = 3600
    """Maximum seconds from iat to exp; a token with a longer lifetime is refused, whoever signed it."""

    @property
    def directory_issuer(self) -> str:
        """`iss` of the tokens that users of the directory get."""
        return f"{self.issuer.rstrip('/')}/directory"


class ClaimsSettings(Model):
    """The claims that the server reads from an issuer's tokens. A missing claim counts as empty.

    `subject` and `tenant` are required in a token. The issuer of a token without roles and groups can
    grant nothing.
    """

    subject: ClaimPath = ("sub",)
    tenant: ClaimPath = ("tenant",)
    roles: ClaimPath = ("roles",)
    groups: ClaimPath | None = ("groups",)
    """None: the groups of this issuer are not read."""
    client: ClaimPath | None = None
    """The OAuth client; None: azp, or else client_id."""


class IntrospectionSettings(Model):
    """The introspection endpoint (RFC 7662) of an issuer, for opaque tokens."""

    url: HttpUrl
    client_id: Text
    client_secret: Secret
    cache_s: Annotated[float, Field(ge=0, le=300)] = 30
    """Seconds for which an answer is used again; a token that the issuer revokes is accepted as long."""
    timeout_s: Seconds = 5.0


class IssuerSettings(Model):
    """An authorization server or identity provider whose tokens are accepted."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    """Name in the policy's input and data (`policies/config/issuers`)."""
    issuer: Text
    """The issuer's URL, exactly as the claim `iss` has it."""
    audience: Text
    """What the claim `aud` must contain."""
    algorithms: tuple[Literal["RS256", "PS256", "ES256", "EdDSA"], ...] = ()
    """Accepted signature algorithms. None: JWTs of this issuer are checked by introspection too."""
    jwks_uri: HttpUrl | None = None
    """The issuer's keys (RFC 7517); None: found in the issuer's metadata (OpenID Connect Discovery,
    RFC 8414)."""
    claims: ClaimsSettings = ClaimsSettings()
    tenant: Text | None = None
    """The tenant of all subjects of this issuer, in place of a claim."""
    ca: Path | None = None
    """CA of the issuer's certificate; None: the system's authorities."""
    leeway_s: Leeway = 30
    max_lifetime_s: Lifetime = 3600
    """Maximum seconds from iat to exp."""
    keys_refresh_s: Annotated[float, Field(ge=1, le=86_400)] = 300
    """Seconds after which keys are fetched again; a key that the issuer removes is used as long."""
    keys_max_age_s: Annotated[float, Field(ge=60, le=7 * 86_400)] = 14_400
    """Seconds for which known keys are used while the issuer does not answer."""
    timeout_s: Seconds = 5.0
    """Deadline in seconds of one request for the keys."""

    introspection: IntrospectionSettings | None = None

    @field_validator("issuer")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        _require_https(HttpUrl(value), "issuer")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.algorithms and self.introspection is None:
            raise ValueError("needs algorithms, such as [RS256], or introspection")
        if self.introspection is not None:
            _require_https(self.introspection.url, "introspection.url")
        if self.tenant is not None and "tenant" in self.claims.model_fields_set:
            raise ValueError("tenant and claims.tenant exclude each other")
        if self.jwks_uri is not None:
            _require_https(self.jwks_uri, "jwks_uri")
        return self


def _require_https(url: HttpUrl, name: str) -> None:
    if url.scheme != "https" and not is_loopback(url.host or ""):
        raise ValueError(
            f"{name} must begin with https://: another server could answer in its place"
        )


class ClientCertificatesSettings(Model):
    """Clients that sign in with a certificate, which Nginx verifies (`nginx_client_ca`)."""

    tenant: Text = "default"
    """The tenant of all of them. Their roles are those of their names in `policies/config/groups`."""


class IdentitySettings(Model):
    """Accepted token issuers and sign-in methods."""

    jwt: JwtSettings
    directory: DirectorySettings | None = None
    """None: nobody signs in with a password, and `POST /auth/token` responds with 404."""
    issuers: tuple[IssuerSettings, ...] = ()
    client_certificates: ClientCertificatesSettings | None = None
    """None: a certificate alone signs nobody in. Tokens can be bound to one all the same."""
    revocations_max_age_s: Annotated[float, Field(ge=5, le=3600)] = 60
    """Seconds for which the list of revoked tokens is used while the database does not answer; then no
    token is accepted."""

    @property
    def issuer_names(self) -> tuple[str, ...]:
        """Names of all issuers whose tokens, keys or certificates are accepted."""
        own = {
            SHARED_SECRET: True,
            API_KEYS: True,
            DIRECTORY: self.directory is not None,
            CLIENT_CERTIFICATES: self.client_certificates is not None,
        }
        accepted = (name for name, is_accepted in own.items() if is_accepted)
        return (*accepted, *(each.name for each in self.issuers))

    @model_validator(mode="after")
    def _require_distinct_issuers(self) -> Self:
        own = [SHARED_SECRET, DIRECTORY, API_KEYS, CLIENT_CERTIFICATES]
        names = [*own, *(each.name for each in self.issuers)]
        urls = [self.jwt.issuer, self.jwt.directory_issuer, *(each.issuer for each in self.issuers)]
        for what, values in (("a name", names), ("an issuer", urls)):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(
                    f"issuers: each needs {what} of its own, different from those of this server; "
                    f"duplicates: {', '.join(twice)}"
                )
        if sum(issuer.introspection is not None for issuer in self.issuers) > 1:
            raise ValueError(
                "issuers: only one may have introspection: an opaque token does not tell its issuer"
            )
        return self
