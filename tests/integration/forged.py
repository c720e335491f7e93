"""Cursors that someone with the code and the key could forge."""

from __future__ import annotations

import json

from mcp_server.identity.shared_secret import derived_key
from mcp_server.tools.catalog import ListArguments
from mcp_server.tools.cursor import KEY_BYTES, CursorCipher, fingerprint_of
from tests.integration.nodes import JWT_SECRET

__all__ = ["CIPHER", "altered", "forged"]

CIPHER = CursorCipher(derived_key(JWT_SECRET, "cursors", KEY_BYTES))
"""The cipher of the nodes in tests."""


def forged(arguments: ListArguments, **place: object) -> str:
    """Return a cursor of the list of these arguments that points to `place`."""
    return CIPHER.encrypt(json.dumps({"query": fingerprint_of(arguments), **place}).encode())


def altered(cursor: str, **changes: object) -> str:
    """Return a cursor of the same list that says something else."""
    return CIPHER.encrypt(json.dumps({**json.loads(CIPHER.decrypt(cursor)), **changes}).encode())
