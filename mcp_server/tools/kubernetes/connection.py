"""The client of one API server, made from its settings.

Only this module imports the Kubernetes client, which needs about 20 MB of memory. It is imported when
the first cluster starts, so a server without clusters does not load it.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config
from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger

from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.tls import RenewedContext, renewed_client_context
from mcp_server.settings import ClusterSettings, Secret, SettingsError
from mcp_server.tools.backend import no_resend
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.kubernetes.plugin import Credential, PluginFailed, ask_plugin

__all__ = ["Connection"]

# Seconds between two checks of the credentials of a kubeconfig: after a failure, and otherwise.
_RETRY_S = 10
_TOKEN_CHECK_S = 60
# Maximum seconds of a renewal, which may involve an identity provider.
_RENEWAL_S = 30
# A credential is renewed this long before it expires.
_EARLY = timedelta(minutes=5)


class Connection:
    """One pool of connections to an API server, with the credentials of the settings.

    Attributes:
        api: builds and sends requests; callers read the raw responses.
    """

    def __init__(self, api: ApiClient, kubeconfig: _Kubeconfig | None = None) -> None:
        self.api = api
        self._kubeconfig = kubeconfig
        self._refresher: asyncio.Task[None] | None = None
        if kubeconfig is not None:
            self._refresher = asyncio.create_task(kubeconfig.keep_fresh(api.configuration))

    @classmethod
    async def open(cls, name: str, settings: ClusterSettings) -> Connection:
        """Read the credentials; this sends no request.

        Raises:
            SettingsError: a file is missing or invalid.
        """
        configuration = Configuration()
        # The guard of `Cluster` limits the calls; streams are long and do not count as calls.
        configuration.connection_pool_maxsize = 0
        # Accept what kubectl accepts: certificates of some clusters lack fields of RFC 5280.
        configuration.disable_strict_ssl_verification = True
        configuration.client_session_kwargs = {
            "cookie_jar": aiohttp.DummyCookieJar(),
            # The kubeconfig names a cluster's proxy; proxies of the environment are not for clusters.
            "trust_env": False,
            "middlewares": (_straight(name), no_resend),
        }
        kubeconfig = None
        try:
            if settings.url is not None:
                return cls(_by_url(configuration, settings))
            if settings.in_cluster:
                load_incluster_config(client_configuration=configuration)
            else:
                kubeconfig = _Kubeconfig(name, settings)
                await kubeconfig.load_and_set(configuration)
            return cls(_client(configuration), kubeconfig)
        except (
            ConfigException,
            OSError,
            SettingsError,
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            yaml.YAMLError,
        ) as error:
            if kubeconfig is not None:
                kubeconfig.forget()
            # The library does not validate the file: an invalid kubeconfig may raise any error.
            strange = isinstance(error, AttributeError | TypeError | UnicodeDecodeError)
            why = f"{settings.kubeconfig} is no kubeconfig" if strange else error
            raise SettingsError(f"tools.kubernetes.clusters.{name}: {why}") from error

    async def close(self) -> None:
        """Close all connections."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.wait([self._refresher])
        if self._kubeconfig is not None:
            self._kubeconfig.forget()
        await self.api.close()


class _Kubeconfig(KubeConfigLoader):
    """One context of a kubeconfig, with credentials that are kept up to date.

    Tokens are read and requested again. A credential of a plugin is used until it expires, even if its
    renewal fails. The library alone never calls a plugin again after a failure, waits for a plugin
    without a deadline, and does not renew certificates.

    Args:
        name: name of the cluster, for the log.
    """

    def __init__(self, name: str, settings: ClusterSettings) -> None:
        # Without this check, a missing file leads to a misleading error of the library.
        cast("Path", settings.kubeconfig).stat()
        merged = KubeConfigMerger(str(settings.kubeconfig)).config
        super().__init__(merged, active_context=settings.context, config_base_path=None)
        self._name = name
        self._expires_at: datetime | None = None
        self._renewal_failed = False
        self._certificates: tempfile.TemporaryDirectory[str] | None = None

    async def keep_fresh(self, configuration: Configuration) -> None:
        """Renew the credentials periodically, until cancelled."""
        while True:
            await asyncio.sleep(
                min(_RETRY_S, _TOKEN_CHECK_S) if self._renewal_failed else _TOKEN_CHECK_S
            )
            try:
                async with asyncio.timeout(_RENEWAL_S):
                    await self.load_and_set(configuration)
            except Exception as error:  # noqa: BLE001 - the previous credentials stay in use
                self._tell(error)

    async def load_from_exec_plugin(self) -> bool:
        """Run the plugin unless its credential is still valid; return whether there is one."""
        if self._expires_at is None or datetime.now(UTC) > self._expires_at - _EARLY:
            try:
                self._take(await ask_plugin(cast("Any", self._user)["exec"].value))
            except (PluginFailed, OSError) as error:
                self._renewal_failed = True
                self._tell(error)
            else:
                self._renewal_failed = False
        return bool(getattr(self, "token", None) or getattr(self, "cert_file", None))

    def forget(self) -> None:
        """Remove the certificates of the plugin from the disk."""
        if self._certificates is not None:
            self._certificates.cleanup()

    def _take(self, credential: Credential) -> None:
        if credential.certificate and credential.key:
            if self._certificates is None:
                self._certificates = tempfile.TemporaryDirectory(prefix="kubeconfig-")
            self.cert_file, self.key_file = _written(
                Path(self._certificates.name), credential.certificate, credential.key
            )
        if credential.token:
            self.token = f"Bearer {credential.token}"
        self._expires_at = credential.expires_at

    def _tell(self, error: Exception) -> None:
        telemetry.log.warning(
            "kubernetes_credentials_not_renewed",
            cluster=self._name,
            error=str(error) or type(error).__name__,
        )


def _written(directory: Path, certificate: str, key: str) -> tuple[str, str]:
    """Write a certificate and its key to files, if they differ, and return the names of the files.

    Raises:
        PluginFailed: the certificate is invalid; the files are unchanged.
    """
    files = directory / "cert.pem", directory / "key.pem"
    if not files[0].exists() or files[0].read_text() != certificate:
        new = directory / "cert.new", directory / "key.new"
        for path, text in zip(new, (certificate, key), strict=True):
            path.write_text(text)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(new[0], new[1])
        except ssl.SSLError as error:
            raise PluginFailed(f"its certificate cannot be used: {error}") from None
        for path, target in zip(new, files, strict=True):
            path.replace(target)
    return str(files[0]), str(files[1])


class _Session:
    """A session of aiohttp that uses the current certificates for each new connection."""

    def __init__(self, session: aiohttp.ClientSession, context: RenewedContext) -> None:
        self._session = session
        self._context = context

    def request(self, **options: Any) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        return self._session.request(ssl=self._context(), **options)

    async def close(self) -> None:
        await self._session.close()


def _straight(name: str) -> aiohttp.ClientMiddlewareType:
    """Return a middleware that refuses redirects: the credentials are for the cluster's address only."""

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
    # As for all connections of this server: trust only the authorities in the file.
    return _client(configuration, renewed_client_context(settings.ca) if settings.ca else None)


def _client(configuration: Configuration, context: RenewedContext | None = None) -> ApiClient:
    """Return a client of the configuration; without `context`, it uses the library's TLS settings."""

    def made() -> ssl.SSLContext:
        context: ssl.SSLContext = RESTClientObject(configuration).ssl_context
        return context

    def files() -> list[Path]:
        named = configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file
        return [Path(name) for name in named if name]

    context = context or RenewedContext(made, files)
    api = ApiClient(configuration)
    rest = api.rest_client
    rest.ssl_context = context()
    rest.pool_manager = cast(
        "aiohttp.ClientSession", _Session(rest._create_pool_manager(), context)
    )
    return api


# What is seen of a token that has no file, and never changes.
_IN_THE_CONFIGURATION = (0, 0)


class _TokenFile:
    """Reads the token of a file into the configuration whenever the file changes."""

    def __init__(self, token: Secret) -> None:
        self._token = token
        self._seen: tuple[int, int] | None = None

    def __call__(self, configuration: Any) -> None:
        try:
            path = self._token.path
            now = path.stat() if path else None
            seen = (now.st_mtime_ns, now.st_ino) if now else _IN_THE_CONFIGURATION
            if seen != self._seen:
                configuration.api_key["BearerToken"] = f"Bearer {self._token.reveal()}"
                self._seen = seen
        except (OSError, SettingsError):
            if self._seen is None:
                raise
            # The file is being replaced: continue with the previous token.
