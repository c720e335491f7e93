"""DPoP proofs: what is accepted, and why others are refused (RFC 9449 section 4.3)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm

from mcp_server.identity import AuthenticationError
from mcp_server.identity.dpop import DpopRequest, read_proof
from tests.integration.fake_issuer import SigningKey, seconds_from_now
from tests.proofs import dpop_proof, thumbprint

TOKEN = "the.access.token"
URL = "https://mcp.test/mcp"
KEY = SigningKey()


def _read(proof: str, *, method: str = "POST") -> Any:
    return read_proof(DpopRequest(proof, method, URL), TOKEN)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256", "EdDSA"])
def test_a_proof_tells_the_key_and_its_own_id(algorithm: str) -> None:
    key = SigningKey(algorithm)

    proof = _read(dpop_proof(key, TOKEN, URL, jti="once"))

    assert (proof.key, proof.id) == (thumbprint(key), "once")


@pytest.mark.parametrize(
    "url", ["https://MCP.test/mcp", "https://mcp.test:443/mcp", "https://mcp.test/mcp?x=1#y"]
)
def test_the_url_is_compared_without_query_and_in_one_form(url: str) -> None:
    assert _read(dpop_proof(KEY, TOKEN, url))


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"jti": None}, "well-formed"),
        ({"htm": None}, "well-formed"),
        ({"htu": None}, "well-formed"),
        ({"iat": None}, "well-formed"),
        ({"ath": None}, "well-formed"),
        ({"jti": ""}, "jti"),
        ({"jti": 7}, "well-formed|jti"),
        ({"jti": "j" * 257}, "jti"),
        ({"htm": "GET"}, "htm"),
        ({"htu": "https://other.test/mcp"}, "htu"),
        ({"htu": "https://mcp.test/mcp/x"}, "htu"),
        ({"htu": "http://mcp.test/mcp"}, "htu"),
        ({"htu": 7}, "htu"),
        ({"htu": "https://mcp.test:x/mcp"}, "well-formed"),
        ({"iat": timedelta(minutes=-2)}, "clocks"),
        ({"iat": timedelta(minutes=2)}, "clocks"),
        ({"iat": "now"}, "well-formed|NumericDate"),
        ({"ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"}, "ath"),
        ({"exp": timedelta(hours=-1)}, "well-formed"),
    ],
    ids=str,
)
def test_a_proof_with_a_wrong_claim_is_refused(claims: dict[str, Any], said: str) -> None:
    proof = dpop_proof(KEY, TOKEN, URL, **seconds_from_now(claims))

    with pytest.raises(AuthenticationError, match=said) as refused:
        _read(proof)

    assert refused.value.code == "invalid_dpop_proof"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"typ": "JWT"}, "typ"),
        ({"typ": None}, "typ"),
        ({"jwk": None}, "jwk"),
        ({"jwk": "key"}, "jwk"),
        ({"jwk": {"kty": "oct", "k": "c2VjcmV0"}}, "jwk"),
        ({"jwk": SigningKey().jwk}, "signature"),
        ({"jwk": SigningKey("RS256").jwk}, "jwk"),
        ({"jwk": ECAlgorithm.to_jwk(KEY.private, as_dict=True)}, "jwk"),
    ],
    ids=["typ", "no typ", "no jwk", "text", "secret", "another key", "another type", "private"],
)
def test_a_proof_with_a_wrong_header_is_refused(header: dict[str, Any], said: str) -> None:
    with pytest.raises(AuthenticationError, match=said):
        _read(dpop_proof(KEY, TOKEN, URL, header=header))


@pytest.mark.parametrize("proof", ["", "x", "a.b.c", "é.é.é", "x" * 9000, TOKEN])
def test_what_is_no_jwt_is_refused(proof: str) -> None:
    with pytest.raises(AuthenticationError) as refused:
        _read(proof)

    assert refused.value.code == "invalid_dpop_proof"
