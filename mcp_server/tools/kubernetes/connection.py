"""The client of one API server, made from its settings.

The only module that imports the Kubernetes client, which costs some 20 MB: it is imported when the
first cluster starts, so that a server without clusters does not pay for it.
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

# Seconds between two looks at the credentials of a kubeconfig, after one that failed and else.
_RETRY_S = 10
_TOKEN_CHECK_S = 60
# An identity provider may take so long.
_RENEWAL_S = 30
# As long before its end, a credential is asked for anew.
_EARLY = timedelta(minutes=5)


class Connection:
    """One pool of connections to an API server, with the credentials of the settings.

    Attributes:
        api: builds and sends requests; their answers are read raw.
    """

    def __init__(self, api: ApiClient, kubeconfig: _Kubeconfig | None = None) -> None:
        self.api = api
        self._kubeconfig = kubeconfig
        self._refresher: asyncio.Task[None] | None = None
        if kubeconfig is not None:
            self._refresher = asyncio.create_task(kubeconfig.keep_fresh(api.configuration))

    @classmethod
    async def open(cls, name: str, settings: ClusterSettings) -> Connection:
        """Read the credentials; nothing is sent yet.

        Raises:
            SettingsError: a file is missing or is not what it should be.
        """
        configuration = Configuration()
        # The guard of the cluster bounds the calls; streams last, and are no calls.
        configuration.connection_pool_maxsize = 0
        # What kubectl accepts is accepted: some clusters' certificates lack fields of RFC 5280.
        configuration.disable_strict_ssl_verification = True
        configuration.client_session_kwargs = {
            "cookie_jar": aiohttp.DummyCookieJar(),
            # A proxy is named in the kubeconfig; those of the environment are for something else.
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
            # The library takes the file as it comes: what is no kubeconfig fails somewhere in it.
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
    """What a kubeconfig says of one context, kept fresh.

    Tokens are read and asked for again; what a plugin gives is kept until it ends, also where asking
    for the next fails. The library's own ways lose a plugin for good that fails, wait for one for ever
    that hangs, and do not renew certificates.

    Args:
        name: the cluster's, for the log.
    """

    def __init__(self, name: str, settings: ClusterSettings) -> None:
        # Without a file the library complains of what is missing in it.
        cast("Path", settings.kubeconfig).stat()
        merged = KubeConfigMerger(str(settings.kubeconfig)).config
        super().__init__(merged, active_context=settings.context, config_base_path=None)
        self._name = name
        self._expires_at: datetime | None = None
        self._asked_in_vain = False
        self._certificates: tempfile.TemporaryDirectory[str] | None = None

    async def keep_fresh(self, configuration: Configuration) -> None:
        """Look at the credentials from time to time, until cancelled."""
        while True:
            await asyncio.sleep(
                min(_RETRY_S, _TOKEN_CHECK_S) if self._asked_in_vain else _TOKEN_CHECK_S
            )
            try:
                async with asyncio.timeout(_RENEWAL_S):
                    await self.load_and_set(configuration)
            except Exception as error:  # noqa: BLE001 - whatever it was, those before it stand
                self._tell(error)

    async def load_from_exec_plugin(self) -> bool:
        """Ask the plugin, unless what it gave last is good for some time; tell whether there is any."""
        if self._expires_at is None or datetime.now(UTC) > self._expires_at - _EARLY:
            try:
                self._take(await ask_plugin(cast("Any", self._user)["exec"].value))
            except (PluginFailed, OSError) as error:
                self._asked_in_vain = True
                self._tell(error)
            else:
                self._asked_in_vain = False
        return bool(getattr(self, "token", None) or getattr(self, "cert_file", None))

    def forget(self) -> None:
        """Remove the certificates that a plugin gave."""
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
    """Write a certificate and its key to files, unless it is there, and return their names.

    Raises:
        PluginFailed: they cannot be used; the files are as they were.
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
    """A session of aiohttp, each connection of which is made with the certificates of its time."""

    def __init__(self, session: aiohttp.ClientSession, context: RenewedContext) -> None:
        self._session = session
        self._context = context

    def request(self, **options: Any) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        return self._session.request(ssl=self._context(), **options)

    async def close(self) -> None:
        await self._session.close()


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
    # One rule for all our connections: what the file holds is trusted, and nothing else.
    return _client(configuration, renewed_client_context(settings.ca) if settings.ca else None)


def _client(configuration: Configuration, context: RenewedContext | None = None) -> ApiClient:
    """Return a client of the configuration, whose TLS is the library's where no context is given."""

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
