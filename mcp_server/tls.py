"""TLS contexts: what one file holds is trusted, and nothing of the system."""

from __future__ import annotations

import ssl
from pathlib import Path

from mcp_server.settings import TlsSettings

__all__ = ["client_context", "server_context"]


def client_context(ca: Path, identity: TlsSettings | None = None) -> ssl.SSLContext:
    """Return a context that verifies the server's chain and name.

    Args:
        ca: PEM file of what is trusted; an intermediate certificate authority is enough.
        identity: our own certificate, where the server asks for one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, ca)
    if identity is not None:
        context.load_cert_chain(identity.cert, identity.key)
    return context


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return a context that asks every client for a certificate of our certificate authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, tls.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls.cert, tls.key)
    return context


def _restrict(context: ssl.SSLContext, ca: Path) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca)
    # A company's intermediate authority is trusted as it is, without its root in the file. Python
    # does so by default from 3.13 on.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
