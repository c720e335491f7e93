"""The image of the lab's hosts: with lab_preinstall it holds packages that the roles install anyway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.plays import ROOT

_ROLES = ROOT / "roles"
_PREINSTALLED: list[str] = yaml.safe_load((_ROLES / "lab/vars/main.yml").read_text())[
    "__lab_role_packages"
]


def _words(path: Path) -> set[str]:
    return set(re.findall(r"[\w.+-]+", path.read_text()))


@pytest.mark.parametrize("package", _PREINSTALLED)
def test_a_preinstalled_package_is_one_that_a_role_installs(package: str) -> None:
    installers = [
        _ROLES / "base/vars/main.yml",
        _ROLES / "firewall/tasks/install.yml",
        _ROLES / "node_exporter/tasks/install.yml",
        _ROLES / "mcp_server/tasks/install.yml",
    ]
    assert any(package in _words(path) for path in installers)
