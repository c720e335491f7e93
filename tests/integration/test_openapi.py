"""The REST API does what docs/openapi.json says: schemathesis sends what fits it, and what does not."""

from __future__ import annotations

import ipaddress
import itertools
import os
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import checks

from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.transports.openapi import openapi
from tests.integration.nodes import McpNode

_api = schemathesis.openapi.from_dict(openapi(every_tool()))
_numbers = itertools.count(1)
_EXCLUDED = [
    # Whether a query of PromQL, a cursor or a name of an asset is valid is not known to a schema.
    checks.positive_data_acceptance,
]


@pytest.fixture(scope="module", autouse=True)
def _no_proxy() -> None:
    os.environ["NO_PROXY"] = "127.0.0.1"


@_api.parametrize()
@hypothesis.settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_the_api_conforms_to_its_description(
    case: schemathesis.Case[Any], shared_node: McpNode
) -> None:
    # By a user and from an address of its own, so that no limit of calls or of bad tokens is met.
    token = shared_node.token(roles=["mcp:admin"])
    address = str(ipaddress.ip_address("10.0.0.0") + next(_numbers))
    case.call_and_validate(
        base_url=shared_node.url,
        headers={"Authorization": f"Bearer {token}", "X-Forwarded-For": address},
        excluded_checks=_EXCLUDED,
        timeout=60,
    )
