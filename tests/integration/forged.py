"""Cursors as somebody who read the code would forge them."""

from __future__ import annotations

import base64
import json

from mcp_server.tools.catalog import ListArguments
from mcp_server.tools.cursor import fingerprint_of

__all__ = ["forged"]


def forged(arguments: ListArguments, **place: object) -> str:
    """Return a cursor of the list of these arguments that points to `place`."""
    document = json.dumps({"query": fingerprint_of(arguments), **place})
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")
