"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from policyctl.tree import PolicyTree
from tests.policies import copied_tree

# Time limits belong to tests that measure; a machine that is busy elsewhere is no fault.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture
def tree(tmp_path: Path) -> PolicyTree:
    """The tree of a copy of the shipped policies, to be changed."""
    return copied_tree(tmp_path)
