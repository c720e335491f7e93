"""Certificates of clients: the names that the policy gets, and what cannot be read."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mcp_server.identity import AuthenticationError
from mcp_server.identity.client_certificates import read_certificate
from mcp_server.identity.verifier import Verifier

_NOW = datetime.datetime.now(datetime.UTC)
_DAY = datetime.timedelta(days=1)


def certificate(
    common_name: str = "",
    names: Sequence[x509.GeneralName] = (),
    *,
    ends: datetime.timedelta = _DAY,
) -> str:
    """Return a certificate as Nginx passes it on."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    name = x509.Name(attributes)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_NOW - 2 * _DAY)
        .not_valid_after(_NOW + ends)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return quote(pem.decode(), safe="")


def test_names_come_in_the_order_uri_dns_email_subject() -> None:
    shown = certificate(
        "agent",
        [
            x509.RFC822Name("agent@example.com"),
            x509.DNSName("agent.example.com"),
            x509.UniformResourceIdentifier("spiffe://example.com/agent"),
        ],
    )

    subject = read_certificate(shown).subject("acme")

    assert subject.groups == (
        "uri:spiffe://example.com/agent",
        "dns:agent.example.com",
        "email:agent@example.com",
        "subject:CN=agent",
    )
    assert (subject.id, subject.tenant, subject.roles) == (subject.groups[0], "acme", ())


def test_a_certificate_without_alternative_names_has_its_subject() -> None:
    assert read_certificate(certificate("agent")).names == ("subject:CN=agent",)


@pytest.mark.parametrize(
    "name", ["a" * 300 + ".example.com", "line\nbreak"], ids=["long", "control"]
)
def test_a_name_that_is_too_long_or_cannot_be_printed_is_left_out(name: str) -> None:
    shown = certificate("agent", [x509.UniformResourceIdentifier(quote(name, safe="\n"))])

    assert read_certificate(shown).names == ("subject:CN=agent",)


def test_a_certificate_without_a_usable_name_is_nobody_and_has_a_thumbprint() -> None:
    """The thumbprint is all that a token which is bound to it needs."""
    shown = read_certificate(certificate())

    assert (shown.names, len(shown.thumbprint)) == ((), 43)
    with pytest.raises(AuthenticationError, match="has no name that can be used"):
        shown.subject("default")


@pytest.mark.parametrize("header", ["x", "-----BEGIN CERTIFICATE-----", "%00", "a" * 20_000])
def test_a_header_that_holds_no_certificate_is_refused(header: str) -> None:
    with pytest.raises(AuthenticationError, match="cannot be read"):
        read_certificate(header)


def test_an_expired_certificate_is_refused_whatever_the_load_balancer_accepts() -> None:
    shown = read_certificate(certificate("agent", ends=-_DAY))

    with pytest.raises(AuthenticationError, match="has expired"):
        Verifier([]).verify_certificate(shown, "default")
