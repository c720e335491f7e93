"""scripts/policy for tests: as a module, and as the command that a policy author runs."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def load_policy() -> ModuleType:
    """Return scripts/policy as a module."""
    loader = importlib.machinery.SourceFileLoader(
        "policy_command", str(ROOT / "scripts" / "policy")
    )
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def copied_tree(policy: ModuleType, folder: Path) -> Any:
    """Return the tree of a copy of the shipped policies, to be changed."""
    shutil.copytree(ROOT / "policies", folder / "policies")
    return policy.Tree(folder / "policies", policy.opa_binary(None))


def write_example(folder: Path) -> str:
    """Write the files of the documentation's new package, not yet joined; return the page."""
    page = (ROOT / "docs" / "policy-rules.md").read_text()
    files = re.findall(r"`(policies/[^`]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL)
    assert len(files) == 4
    for name, text in files:
        (folder.parent / name).parent.mkdir(exist_ok=True)
        (folder.parent / name).write_text(text)
    return page


def run_policy(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/policy in `folder`, as a reader of the documentation does."""
    command = [sys.executable, str(ROOT / "scripts" / "policy"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
