"""Fixtures for the scenario `data` (`molecule test -s data`): its tests destroy a host."""

from __future__ import annotations

import secrets

import pytest

from tests.deploy.conftest import (
    anyio_backend,
    installation,
    pytest_configure,
    pytest_unconfigure,
)
from tests.deploy.installation import Installation

__all__ = ["anyio_backend", "installation", "pytest_configure", "pytest_unconfigure"]


@pytest.fixture(scope="session", autouse=True)
def state_passphrase(installation: Installation) -> None:
    """Make the passphrase of the copies of .state, as docs/backup.md tells an operator to."""
    file = installation.secrets.parent / "lab/state-passphrase"
    file.touch(mode=0o600)
    file.write_text(f"{secrets.token_urlsafe(33)}\n")
