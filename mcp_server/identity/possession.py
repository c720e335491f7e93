"""Tokens bound to a key: the claim `cnf` (RFC 7800) and the proof of possession."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mcp_server.identity.client_certificates import ClientCertificate
from mcp_server.identity.dpop import DpopProof, DpopRequest, read_proof
from mcp_server.identity.subject import AuthenticationError, Subject

__all__ = ["NOTHING", "FirstUse", "Presented", "require_possession"]

FirstUse = Callable[[DpopProof], Awaitable[bool]]
"""Tells whether a proof was not used before, on any node; raises IdentityUnavailable."""


@dataclass(frozen=True, slots=True)
class Presented:
    """The client certificate or the DPoP proof of a request.

    Attributes:
        certificate: the client's certificate, verified by the load balancer.
        dpop: the request, if its scheme is DPoP.
    """

    certificate: ClientCertificate | None = None
    dpop: DpopRequest | None = None


NOTHING = Presented()


async def require_possession(
    subject: Subject, token: str, presented: Presented, first_use: FirstUse
) -> None:
    """Refuse a token that is bound to a key if the request does not prove that key.

    Raises:
        AuthenticationError: the proof is missing, or is about another key.
        IdentityUnavailable: as `first_use`.
    """
    certificate = presented.certificate
    if subject.bound_certificate and (
        certificate is None or certificate.thumbprint != subject.bound_certificate
    ):
        raise AuthenticationError(
            "the token is bound to a client certificate; connect with that certificate"
        )
    if presented.dpop is None:
        if subject.bound_key:
            raise AuthenticationError(
                "the token is bound to a key; send it as Authorization: DPoP, with a proof"
            )
        return
    if not subject.bound_key:
        raise AuthenticationError("the token is bound to no key; send it as Authorization: Bearer")
    proof = read_proof(presented.dpop, token)
    if proof.key != subject.bound_key:
        raise AuthenticationError(
            "the DPoP proof was signed with another key than the key in the token",
            code="invalid_dpop_proof",
        )
    if not await first_use(proof):
        raise AuthenticationError(
            "the DPoP proof was used before; make one for each request", code="invalid_dpop_proof"
        )
