"""Certificates of clients, as the load balancer passes them on after it has verified them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mcp_server.identity.subject import AuthenticationError, Subject
from mcp_server.settings import CLIENT_CERTIFICATES

__all__ = ["CERTIFICATE_HEADER", "ClientCertificate", "read_certificate"]

CERTIFICATE_HEADER = "x-client-certificate"
"""The header in which the load balancer passes the certificate: PEM, percent-encoded."""

_MAX_LENGTH = 16_384
_MAX_NAME_LENGTH = 256


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A verified certificate.

    Attributes:
        thumbprint: SHA-256 of the certificate in Base64url (`x5t#S256`, RFC 8705 section 3.1).
        names: its names with their kinds: `uri:`, `dns:` and `email:` (subject alternative names), then
            `subject:` (RFC 4514).
        issued_at, expires_at: Unix times in seconds.
    """

    thumbprint: str
    names: tuple[str, ...]
    issued_at: float
    expires_at: float

    def subject(self, tenant: str) -> Subject:
        """Return the subject of a client that shows this certificate and no token.

        Its id is the first name. The names are its groups: the policy data give them roles.

        Raises:
            AuthenticationError: the certificate has no usable name.
        """
        if not self.names:
            raise AuthenticationError("the client certificate has no name that can be used")
        return Subject(
            id=self.names[0],
            tenant=tenant,
            roles=(),
            groups=self.names,
            token_id=self.thumbprint,
            expires_at=self.expires_at,
            issued_at=self.issued_at,
            issuer=CLIENT_CERTIFICATES,
            method="certificate",
        )


@lru_cache(maxsize=256)
def read_certificate(escaped: str) -> ClientCertificate:
    """Read the header of the load balancer.

    Raises:
        AuthenticationError: it holds no certificate.
    """
    if len(escaped) > _MAX_LENGTH:
        raise _not_readable()
    try:
        certificate = x509.load_pem_x509_certificate(unquote(escaped).encode())
        names = tuple(name for name in _names(certificate) if _is_usable(name))
    except ValueError:
        raise _not_readable() from None
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    return ClientCertificate(
        thumbprint=base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        names=names,
        issued_at=certificate.not_valid_before_utc.timestamp(),
        expires_at=certificate.not_valid_after_utc.timestamp(),
    )


def _names(certificate: x509.Certificate) -> list[str]:
    names: list[str] = []
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        pass
    else:
        for prefix, kind in (
            ("uri", x509.UniformResourceIdentifier),
            ("dns", x509.DNSName),
            ("email", x509.RFC822Name),
        ):
            values = extension.value.get_values_for_type(kind)
            names += [f"{prefix}:{value}" for value in values]
    if subject := certificate.subject.rfc4514_string():
        names.append(f"subject:{subject}")
    return names


def _is_usable(name: str) -> bool:
    return name.isprintable() and len(name) <= _MAX_NAME_LENGTH


def _not_readable() -> AuthenticationError:
    return AuthenticationError("the client certificate cannot be read")
