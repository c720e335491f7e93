"""TLS contexts that trust the authorities in one file, and not the authorities of the system."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from mcp_server.settings import SettingsError, TlsSettings

__all__ = [
    "RenewedContext",
    "client_context",
    "renew_server_context",
    "renewed_client_context",
    "server_context",
]

_log = structlog.stdlib.get_logger("mcp_server")


class RenewedContext:
    """A context for connections to other systems, reloaded when its files change.

    Certificates and authorities are renewed while the server runs; open connections continue. While the
    files are inconsistent, such as between the writes of a certificate and its key, the previous context
    is used.

    Args:
        make: returns a context from the current files; raises OSError or SettingsError.
        files: returns the paths of the files that `make` reads.

    Raises:
        OSError, SettingsError: as `make`.
    """

    def __init__(
        self, make: Callable[[], ssl.SSLContext], files: Callable[[], Iterable[Path]]
    ) -> None:
        self._make = make
        self._files = files
        self._seen = self._state()
        self._context = make()

    def __call__(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        if (state := self._state()) != self._seen:
            self._seen = state
            try:
                self._context = self._make()
            except (OSError, SettingsError) as error:
                _log.warning("certificate_not_renewed", error=str(error))
            else:
                _log.info("certificate_renewed", files=[str(path) for path in self._files()])
        return self._context

    def _state(self) -> list[tuple[Path, tuple[int, int, int] | None]]:
        return [(path, _version(path)) for path in self._files()]


def renewed_client_context(ca: Path, identity: TlsSettings | None = None) -> RenewedContext:
    """Return `client_context`, reloaded whenever one of its files changes.

    Raises:
        SettingsError: a file cannot be used.
    """
    files = (ca,) if identity is None else (ca, identity.cert, identity.key)
    return RenewedContext(lambda: client_context(ca, identity), lambda: files)


def client_context(ca: Path, identity: TlsSettings | None = None) -> ssl.SSLContext:
    """Return a context that verifies the server's chain and name.

    Args:
        ca: PEM file of the trusted authorities; an intermediate authority is enough.
        identity: this server's certificate, if the peer requires one.

    Raises:
        SettingsError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, ca)
    if identity is not None:
        _bear(context, identity)
    return context


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return a context that requires a certificate of the internal authority from every client.

    Raises:
        SettingsError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, tls.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    _bear(context, tls)
    return context


def renew_server_context(context: ssl.SSLContext, tls: TlsSettings) -> None:
    """Load the current files into a context in use, for new connections.

    Authorities are only added: an authority removed from the file stays trusted until a restart.

    Raises:
        SettingsError: a file cannot be used; the context is unchanged.
    """
    server_context(tls)
    _restrict(context, tls.ca)
    _bear(context, tls)


def _restrict(context: ssl.SSLContext, ca: Path) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise SettingsError(f"cannot use the CA file {ca}: {_why(error)}") from error
    # Trust an intermediate authority without its root in the file, as Python 3.13 does by default.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _bear(context: ssl.SSLContext, identity: TlsSettings) -> None:
    try:
        context.load_cert_chain(identity.cert, identity.key)
    except OSError as error:
        raise SettingsError(
            f"cannot use the certificate {identity.cert} with the key {identity.key}: {_why(error)}"
        ) from error


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
