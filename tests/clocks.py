"""The time that circuit breakers go by, moved by a test in place of waiting for it."""

from __future__ import annotations

import time
from types import SimpleNamespace

import purgatory.domain.model
import pytest

from mcp_server.tools import backend

__all__ = ["Clock"]


class Clock:
    """A clock that stands still until a test moves it: no machine is too slow for an open circuit."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._now = time.time()
        stopped = SimpleNamespace(time=lambda: self._now)
        patch.setattr(purgatory.domain.model, "time", stopped)
        patch.setattr(backend, "time", stopped)

    def forward(self, seconds: float) -> None:
        """Move it ahead."""
        self._now += seconds
