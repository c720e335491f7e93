"""The role mcp_server does not compile the generated API classes and models of the Kubernetes client."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_server_imports_no_module_that_the_role_leaves_uncompiled() -> None:
    tasks = yaml.safe_load((ROOT / "roles/mcp_server/tasks/release.yml").read_text())
    arguments = [
        argument
        for task in tasks
        for argument in task.get("ansible.builtin.command", {}).get("argv", [])
    ]
    uncompiled = re.compile(arguments[arguments.index("-x") + 1])
    program = (
        "import sys; import mcp_server.app, mcp_server.tools.kubernetes.connection;"
        "print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)), sep='\\n')"
    )

    imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert any("/kubernetes/aio/" in path for path in imported)
    assert [path for path in imported if uncompiled.search(path)] == []
