"""What all tests share."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from tests.policy_command import copied_tree, load_policy

# Time limits belong to tests that measure; a machine that is busy elsewhere is no fault.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def policy() -> ModuleType:
    """scripts/policy as a module."""
    return load_policy()


@pytest.fixture
def tree(policy: ModuleType, tmp_path: Path) -> Any:
    """The tree of a copy of the shipped policies, to be changed."""
    return copied_tree(policy, tmp_path)
