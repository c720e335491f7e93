"""The clock of circuit breakers, which a test moves instead of waiting."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from mcp_server.tools.backend import circuit

__all__ = ["Clock"]


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._now = time.monotonic()
        patch.setattr(circuit, "time", SimpleNamespace(monotonic=lambda: self._now))

    def forward(self, seconds: float) -> None:
        """Move the clock ahead."""
        self._now += seconds
