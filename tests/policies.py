"""Copies of the shipped policies, and the command policyctl that a policy author runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from policyctl.opa import find_opa
from policyctl.tree import PolicyTree

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ROOT / "policies"
# Beside the Python that runs the tests, as scripts/bootstrap installs it.
POLICYCTL = Path(sys.executable).with_name("policyctl")


def copied_tree(folder: Path) -> PolicyTree:
    """Return the tree of a copy of the shipped policies, to be changed."""
    shutil.copytree(POLICIES, folder / "policies")
    return PolicyTree(folder / "policies", find_opa())


def write_example(folder: Path) -> str:
    """Write the new package of the documentation, not yet part of a decision; return the page."""
    page = (ROOT / "docs" / "policy-rules.md").read_text()
    files = re.findall(r"`(policies/[^`]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL)
    assert len(files) == 4
    for name, text in files:
        (folder.parent / name).parent.mkdir(exist_ok=True)
        (folder.parent / name).write_text(text)
    return page


def run_policyctl(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run policyctl in `folder`, with variables added to the environment."""
    return subprocess.run(
        [str(POLICYCTL), *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
