"""The configuration as one typed model, read from the YAML file that MCP_CONFIG_PATH names.

Unknown keys are errors, so that a misspelt setting never silently keeps its default. Secrets are read
on demand: from files that only the service's unit can read, or encrypted in the configuration itself.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, field_validator, model_validator

from mcp_server.settings.directory import DirectorySettings
from mcp_server.settings.document import Document, read_document, validated
from mcp_server.settings.identity import (
    API_KEYS,
    CLIENT_CERTIFICATES,
    DIRECTORY,
    MAX_LIFETIME_S,
    SHARED_SECRET,
    ClaimsSettings,
    IdentitySettings,
    IntrospectionSettings,
    IssuerSettings,
    JwtSettings,
)
from mcp_server.settings.model import (
    Model,
    Port,
    Seconds,
    SettingsError,
    TlsSettings,
    is_loopback,
)
from mcp_server.settings.origins import CorsSettings
from mcp_server.settings.secret import EncryptionSettings, Secret, secrets_of
from mcp_server.settings.tools import (
    AccessSettings,
    ClusterSettings,
    CmdbSettings,
    GrafanaSettings,
    KubernetesSettings,
    MonitoringSettings,
    ToolsSettings,
)

__all__ = [
    "API_KEYS",
    "CLIENT_CERTIFICATES",
    "DIRECTORY",
    "MAX_LIFETIME_S",
    "SHARED_SECRET",
    "AccessSettings",
    "AuditSettings",
    "ClaimsSettings",
    "ClusterSettings",
    "CmdbSettings",
    "CorsSettings",
    "CountersSettings",
    "DatabaseSettings",
    "DirectorySettings",
    "EncryptionSettings",
    "GrafanaSettings",
    "IdentitySettings",
    "IntrospectionSettings",
    "IssuerSettings",
    "JwtSettings",
    "KubernetesSettings",
    "ListenSettings",
    "LogSettings",
    "MonitoringSettings",
    "PolicySettings",
    "Secret",
    "Settings",
    "SettingsError",
    "TelemetrySettings",
    "TlsSettings",
    "ToolsSettings",
    "is_loopback",
    "load_settings",
    "secrets_of",
    "settings_of",
]


class _ListenerSettings(Model):
    host: str = "127.0.0.1"
    port: Port
    tls: TlsSettings | None = None
    allowed_peers: tuple[str, ...] = ()
    """DNS names; a peer's certificate must contain one of them. Required with tls."""

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        ipaddress.ip_address(value)
        return value

    @model_validator(mode="after")
    def _names_its_peers(self) -> Self:
        if (self.tls is None) != (not self.allowed_peers):
            raise ValueError(
                "tls and allowed_peers belong together: name the peers that may connect, since a "
                "certificate of the CA alone says only that its bearer is one of all hosts"
            )
        return self


class ListenSettings(_ListenerSettings):
    """The listener that Nginx connects to."""

    port: Port = 8443
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of the load balancers, whose X-Forwarded-For is trusted."""
    client_certificates: bool = False
    """Whether the load balancers verify certificates of clients, pass each one in X-Client-Certificate,
    and drop this header from clients. Otherwise the header is ignored."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 256 * 1024
    max_concurrency: Annotated[int, Field(ge=1)] = 1000
    """Maximum requests in progress; further requests get 503 at once."""
    drain_s: Annotated[float, Field(ge=0, le=120)] = 5.0
    """Seconds for which a stopping node answers new requests with 503, so that the load balancer moves
    them to other nodes and meets no closed port."""

    @model_validator(mode="after")
    def _knows_who_verifies_certificates(self) -> Self:
        if self.client_certificates and (self.tls is None or not self.trusted_proxies):
            raise ValueError(
                "client_certificates needs tls and trusted_proxies: without them anybody could claim a "
                "certificate"
            )
        return self


class TelemetrySettings(_ListenerSettings):
    """The listener that Prometheus scrapes (`/metrics`) and `mcpctl probe` asks (`/status`); traces."""

    port: Port = 9464
    otlp_endpoint: HttpUrl | None = None
    """Base URL of an OTLP/HTTP collector, such as https://otel.example.com:4318: traces are sent to
    /v1/traces below it. None: no traces."""
    otlp_ca: Path | None = None
    """CA certificate of the collector; None: the system's authorities."""


class PolicySettings(Model):
    """The OPA sidecar of this node."""

    socket: Path = Path("/run/opa/opa.sock")
    timeout_s: Seconds = 1.0


class CountersSettings(Model):
    """Redis, which holds the rate-limit windows."""

    url: str
    """`rediss://USER@HOST:PORT/DATABASE`, `redis://…` without TLS, or `unix://USER@/PATH?db=DATABASE`."""
    password: Secret | None = None
    ca: Path | None = None
    """CA of the certificate of Redis, for rediss; None: the system's authorities."""
    timeout_s: Seconds = 1.0
    max_connections: Annotated[int, Field(ge=1)] = 16
    """Connections to Redis; a call holds one for well under a millisecond."""

    @field_validator("url")
    @classmethod
    def _is_of_redis(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must begin with rediss://, redis:// or unix://")
        if url.password is not None:
            raise ValueError("holds a password, which belongs into the file of counters.password")
        if url.scheme == "unix" and not url.path:
            raise ValueError("names no socket: unix:///run/redis/redis.sock")
        if url.scheme != "unix":
            if not url.hostname:
                raise ValueError("names no host")
            _ = url.port  # raises ValueError if the port is invalid
            if re.fullmatch(r"(/\d*)?", url.path) is None:
                raise ValueError("must end with the number of a database, such as /0")
        if url.fragment or re.fullmatch(r"(db=\d+)?", url.query) is None:
            raise ValueError("has options that are not taken; only db=NUMBER is")
        return value

    @model_validator(mode="after")
    def _uses_the_ca(self) -> Self:
        if self.ca is not None and not self.url.lower().startswith("rediss:"):
            raise ValueError(
                "ca is for a url that begins with rediss://: without it there is no TLS"
            )
        return self


class DatabaseSettings(Model):
    """PostgreSQL: audit and CMDB."""

    host: str
    port: Port = 5432
    name: str = "mcp"
    user: str = "mcp_server"
    password: Secret | None = None
    ca: Path | None = None
    """CA certificate for verify-full; None only for a Unix socket or a test."""
    pool_max: Annotated[int, Field(ge=1, le=200)] = 10
    """Maximum connections of this node."""
    timeout_s: Seconds = 5.0


class AuditSettings(Model):
    """The audit log: signed heads of its chains, and digests of results."""

    signing_key: Secret | None = None
    """Ed25519 key (PEM) of this node that signs the heads of its chains."""
    heads: Path | None = None
    """Directory for the signed heads."""
    result_digests: bool = True
    """Whether a row has the SHA-256 and the size of the result that the caller got."""

    @model_validator(mode="after")
    def _signs_what_it_writes(self) -> Self:
        if (self.signing_key is None) != (self.heads is None):
            raise ValueError("signing_key and heads belong together")
        return self


class LogSettings(Model):
    """Structured logs on standard error, one JSON object a line."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(Model):
    """Everything one server node needs to know."""

    node: str
    public_url: HttpUrl
    listen: ListenSettings = ListenSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    identity: IdentitySettings
    policy: PolicySettings = PolicySettings()
    counters: CountersSettings
    database: DatabaseSettings
    audit: AuditSettings = AuditSettings()
    tools: ToolsSettings = ToolsSettings()
    log: LogSettings = LogSettings()
    cors: CorsSettings = CorsSettings()
    encryption: EncryptionSettings | None = None

    @model_validator(mode="after")
    def _gets_the_certificates(self) -> Self:
        if self.identity.client_certificates is not None and not self.listen.client_certificates:
            raise ValueError(
                "identity.client_certificates needs listen.client_certificates: true, and a load "
                "balancer that verifies certificates of clients (nginx_client_ca)"
            )
        return self

    @property
    def public_origin(self) -> str:
        """Origin of the server for clients, without a trailing slash: `https://mcp.example.com`."""
        return str(self.public_url).rstrip("/")


def load_settings(path: Path) -> Settings:
    """Read and validate the configuration file.

    Args:
        path: a YAML file.

    Raises:
        SettingsError: the file is missing, is not YAML, or is invalid. The message lists every fault
            with its path, its value unless it may be a secret, and what is accepted.
    """
    return settings_of(read_document(path))


def settings_of(document: Document) -> Settings:
    """Return the settings of a configuration file; see `load_settings`."""
    settings = validated(document, Settings)
    cipher = settings.encryption.cipher() if settings.encryption else None
    for path, secret in secrets_of(settings):
        place = ".".join(path)
        if secret.encrypted is not None and cipher is None:
            raise SettingsError(
                f"{document.path}: {place} is encrypted, and there is no section encryption, which "
                "names the key"
            )
        secret.bind(place, cipher)
    return settings
