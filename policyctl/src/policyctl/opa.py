"""Finds the OPA binary."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

OPA_VERSION = "1.22.2"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class PolicyError(Exception):
    """The policies cannot be used; the message says where, why and what to do."""


def find_opa(given: str | None = None) -> Path:
    """Return the absolute path of the OPA binary.

    Args:
        given: a file or a name on the PATH. Without it the binary that scripts/build_opa keeps in the
            cache is used, else the one on the PATH.

    Raises:
        PolicyError: there is no such program.
    """
    if given:
        found = shutil.which(given)
        if not found:
            raise PolicyError(f"There is no OPA binary {given}, or it cannot be executed.")
    else:
        cached = _cached()
        found = str(cached) if os.access(cached, os.X_OK) else shutil.which("opa")
        if not found:
            raise PolicyError(
                f"OPA was not found: there is no {cached}, and no opa on the PATH. Build it with "
                "scripts/build_opa, or name a binary with --opa FILE."
            )
    # The policies are checked from another folder.
    return Path(found).absolute()


def _cached() -> Path:
    machine = platform.machine()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"opa-{OPA_VERSION}-{_ARCHITECTURES.get(machine, machine)}"
    return cache / "enterprise-mcp" / "bin" / name
