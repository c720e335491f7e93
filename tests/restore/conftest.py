"""Fixtures for the scenario `data` (`molecule test -s data`): its tests destroy a host."""

from __future__ import annotations

from tests.deploy.conftest import (
    anyio_backend,
    installation,
    pytest_configure,
    pytest_unconfigure,
)

__all__ = ["anyio_backend", "installation", "pytest_configure", "pytest_unconfigure"]
