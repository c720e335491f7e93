"""Settings of the tools and of the systems that they call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, field_validator, model_validator

from mcp_server.settings.model import Model, Seconds, TlsSettings, is_loopback
from mcp_server.settings.secret import Secret

__all__ = [
    "AccessSettings",
    "ClusterSettings",
    "CmdbSettings",
    "GrafanaSettings",
    "KubernetesSettings",
    "MonitoringSettings",
    "ToolsSettings",
]


class GrafanaSettings(Model):
    """Grafana, where dashboards are created, as the service account that the token belongs to."""

    url: HttpUrl
    """URL of Grafana, including the path that it is served under, if any."""
    token: Secret
    ca: Path | None = None
    """CA certificate of Grafana's certificate; None: the system's authorities."""
    datasource_uid: Annotated[str, Field(min_length=1)]
    """Uid of the data source in Grafana for the Prometheus that the monitoring tools query."""
    folder: Annotated[str, Field(min_length=1)] | None = None
    """Uid or title of the folder for dashboards if the caller names none; None: the root."""
    timeout_s: Seconds = 5.0

    @field_validator("url")
    @classmethod
    def _keeps_the_token(cls, value: HttpUrl) -> HttpUrl:
        if value.scheme != "https" and value.host not in ("127.0.0.1", "[::1]", "localhost"):
            raise ValueError("must begin with https://: the token would be readable on its way")
        return value


class AccessSettings(Model):
    """Connection to a Prometheus or an Alertmanager outside of this installation."""

    token: Secret | None = None
    """Bearer token for the header `Authorization`."""
    ca: Path | None = None
    """CA of the server's certificate; None: the system's authorities if there is a token."""
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9!_.*'()|-]{1,150}$")] | None = None
    """Tenant for the header `X-Scope-OrgID` of Mimir and Cortex."""

    @property
    def without_our_certificate(self) -> bool:
        """Whether connections use no client certificate of this server, and their own authorities."""
        return self.token is not None or self.ca is not None


class MonitoringSettings(Model):
    """Prometheus and Alertmanager, which the monitoring tools ask, and Grafana, if there is one."""

    prometheus_url: HttpUrl
    alertmanager_url: HttpUrl
    prometheus: AccessSettings = AccessSettings()
    alertmanager: AccessSettings = AccessSettings()
    grafana: GrafanaSettings | None = None
    tls: TlsSettings | None = None
    """Client certificate and CA for a server without a token and a CA of its own."""
    timeout_s: Seconds = 10.0

    @model_validator(mode="after")
    def _keeps_the_tokens(self) -> Self:
        for name, url, access in (
            ("prometheus", self.prometheus_url, self.prometheus),
            ("alertmanager", self.alertmanager_url, self.alertmanager),
        ):
            if access.token and url.scheme != "https" and not is_loopback(url.host or ""):
                raise ValueError(
                    f"{name}_url must begin with https://: the token would be readable on its way"
                )
        return self


class CmdbSettings(Model):
    """Where the CMDB tools find assets."""

    backend: Literal["postgres", "rest"] = "postgres"
    """postgres: the embedded CMDB in the server's database; rest: an existing CMDB."""
    api_url: HttpUrl | None = None
    """Base URL of an existing CMDB, without /api/v1."""
    key: Secret | None = None
    """Bearer token for an existing CMDB."""
    ca: Path | None = None
    """CA of the certificate of an existing CMDB; None: the system's authorities."""
    timeout_s: Seconds = 10.0
    """Deadline in seconds of one request to an existing CMDB."""

    @model_validator(mode="after")
    def _fits_the_backend(self) -> Self:
        if self.backend == "postgres":
            if any(given is not None for given in (self.api_url, self.key, self.ca)):
                raise ValueError("api_url, key and ca are for backend: rest")
        elif self.api_url is None or self.key is None:
            raise ValueError("backend: rest needs api_url and key")
        elif self.api_url.scheme != "https" and not is_loopback(self.api_url.host or ""):
            raise ValueError("api_url must be https: the key would cross the network in the clear")
        elif (self.api_url.path or "").rstrip("/").endswith("/api/v1"):
            raise ValueError("api_url must not contain /api/v1: the server appends it")
        return self


class ClusterSettings(Model):
    """How one Kubernetes cluster is reached: by `url`, `kubeconfig`, or from inside (`in_cluster`)."""

    url: HttpUrl | None = None
    """The API server, https only."""
    token: Secret | None = None
    """Bearer token for `url`; its file is read again whenever it changes."""
    ca: Path | None = None
    """CA certificate for `url`; None: the system's authorities."""
    kubeconfig: Path | None = None
    context: str | None = None
    """Context in `kubeconfig`; None: its current context."""
    in_cluster: bool = False
    """Use the service account of the pod that this server runs in."""
    metrics_cluster: Annotated[str, Field(min_length=1)] | None = None
    """Value of the label `cluster` in the cluster's metrics and alerts; None: the cluster's name."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        ways = [self.url is not None, self.kubeconfig is not None, self.in_cluster]
        if sum(ways) != 1:
            raise ValueError("needs exactly one of url, kubeconfig and in_cluster: true")
        if self.url is None:
            if self.token is not None or self.ca is not None:
                raise ValueError("token and ca belong to url; a kubeconfig holds its own")
        elif self.url.scheme != "https":
            raise ValueError("url must begin with https://: the token would be readable on its way")
        elif self.token is None:
            raise ValueError("url needs a token")
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("context belongs to kubeconfig")
        return self


ClusterName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]


class KubernetesSettings(Model):
    """The Kubernetes clusters that the tools work on."""

    clusters: Annotated[dict[ClusterName, ClusterSettings], Field(min_length=1)]
    default: str | None = None
    """Cluster of calls that name none; with a single cluster, that cluster is the default."""
    impersonate: bool = False
    """Send the caller's id and groups as Impersonate-User and Impersonate-Group, so that the cluster's
    RBAC applies to the caller as well."""
    timeout_s: Seconds = 10.0

    @model_validator(mode="after")
    def _has_a_default(self) -> Self:
        if self.default is None and len(self.clusters) > 1:
            raise ValueError("default must name one of: " + ", ".join(self.clusters))
        if self.default is not None and self.default not in self.clusters:
            raise ValueError(
                f"default names no cluster {self.default}; known: {', '.join(self.clusters)}"
            )
        return self

    @property
    def default_cluster(self) -> str:
        """Name of the cluster of calls that name none."""
        return self.default or next(iter(self.clusters))


class ToolsSettings(Model):
    """The backends; a backend that is not configured hides its tools."""

    kubernetes: KubernetesSettings | None = None
    monitoring: MonitoringSettings | None = None
    cmdb: CmdbSettings | None = None
