"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# Time limits belong to tests that measure; a machine that is busy elsewhere is no fault.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
