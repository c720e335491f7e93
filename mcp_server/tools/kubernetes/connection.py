"""The client of one API server, made from its settings.

The only module that imports the Kubernetes client, which costs some 20 MB: it is imported when the
first cluster starts, so that a server without clusters does not pay for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config, refresh_token

from mcp_server.settings import ClusterSettings, Secret, SettingsError
from mcp_server.tls import client_context
from mcp_server.tools.backend import one_request
from mcp_server.tools.catalog import ToolError

__all__ = ["Connection"]

_POOL = 32
_TOKEN_CHECK_S = 60


class Connection:
    """One pool of connections to an API server, with the credentials of the settings.

    Attributes:
        api: builds and sends requests; their answers are read raw.
    """

    def __init__(self, api: ApiClient, refresher: asyncio.Task[None] | None = None) -> None:
        self.api = api
        self._refresher = refresher

    @classmethod
    async def open(cls, name: str, settings: ClusterSettings) -> Connection:
        """Read the credentials; nothing is sent yet.

        Raises:
            SettingsError: a file is missing or is not what it should be.
        """
        configuration = Configuration()
        configuration.connection_pool_maxsize = _POOL
        # What kubectl accepts is accepted: some clusters' certificates lack fields of RFC 5280.
        configuration.disable_strict_ssl_verification = True
        configuration.client_session_kwargs = {
            "cookie_jar": aiohttp.DummyCookieJar(),
            # A proxy is named in the kubeconfig; those of the environment are for something else.
            "trust_env": False,
            "middlewares": (_straight(name), one_request),
        }
        refresher = None
        try:
            if settings.url is not None:
                return cls(_by_url(configuration, settings))
            if settings.in_cluster:
                load_incluster_config(client_configuration=configuration)
            else:
                loader = await load_kube_config(
                    config_file=str(settings.kubeconfig),
                    context=settings.context,
                    client_configuration=configuration,
                    persist_config=False,
                )
                # Credentials of a plugin (exec) expire; those of a file do not change by themselves.
                refresher = asyncio.create_task(
                    refresh_token(loader, configuration, interval=_TOKEN_CHECK_S)
                )
            return cls(ApiClient(configuration), refresher)
        except (ConfigException, OSError, ValueError, KeyError, yaml.YAMLError) as error:
            raise SettingsError(f"tools.kubernetes.clusters.{name}: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        if self._refresher is not None:
            self._refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresher
        await self.api.close()


def _straight(name: str) -> aiohttp.ClientMiddlewareType:
    """Return a middleware that refuses redirects: credentials are for the cluster's address alone."""

    async def straight(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if 300 <= response.status < 400:
            response.close()
            raise ToolError(
                f"the Kubernetes cluster {name} answers with a redirect (HTTP {response.status}), "
                "which is not followed; an administrator has to correct its address"
            )
        return response

    return straight


def _by_url(configuration: Configuration, settings: ClusterSettings) -> ApiClient:
    configuration.host = str(settings.url).rstrip("/")
    if settings.token is not None:
        token = _TokenFile(settings.token)
        token(configuration)
        setattr(configuration, "refresh_api_key_hook", token)  # noqa: B010 - typed as None there
    api = ApiClient(configuration)
    if settings.ca is not None:
        # One rule for all our connections: what the file holds is trusted, and nothing else.
        api.rest_client.ssl_context = client_context(settings.ca)
    return api


class _TokenFile:
    """Puts the token of a file into the configuration, again whenever the file changes."""

    def __init__(self, token: Secret) -> None:
        self._token = token
        self._seen: tuple[int, int] | None = None

    def __call__(self, configuration: Any) -> None:
        try:
            now = Path(self._token.file).stat()
            changed = (now.st_mtime_ns, now.st_ino) != self._seen
            if changed:
                configuration.api_key["BearerToken"] = f"Bearer {self._token.reveal()}"
                self._seen = (now.st_mtime_ns, now.st_ino)
        except (OSError, SettingsError):
            if self._seen is None:
                raise
            # The file is being replaced: the token that was read before still stands.
