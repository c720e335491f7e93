"""Cursors as somebody who has the code and the key would forge them.

This process seals cursors as the nodes of the tests do.
"""

from __future__ import annotations

import json

from mcp_server.identity.jwt import derived_key
from mcp_server.tools.catalog import ListArguments
from mcp_server.tools.cursor import KEY_BYTES, fingerprint_of, opened, seal_cursors, sealed
from tests.integration.nodes import JWT_SECRET

__all__ = ["altered", "forged"]

seal_cursors(derived_key(JWT_SECRET, "cursors", KEY_BYTES))


def forged(arguments: ListArguments, **place: object) -> str:
    """Return a cursor of the list of these arguments that points to `place`."""
    return sealed(json.dumps({"query": fingerprint_of(arguments), **place}).encode())


def altered(cursor: str, **changes: object) -> str:
    """Return a cursor of the same list that says something else."""
    return sealed(json.dumps({**json.loads(opened(cursor)), **changes}).encode())
