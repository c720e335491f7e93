"""Runs ansible-playbook in forks of one process that has imported Ansible.

The imports take half of the processor time of a short playbook. Each fork parses its command line, loads
its plugins and reads its files, as a new ansible-playbook process does. Ansible reads its settings from
the environment while it is imported, so each environment needs a server of its own (tests/plays.py).

Input: one JSON object a line with `arguments` (of ansible-playbook), `environment`, `umask`, `stdout`
and `stderr` (paths of existing files).
Output: one exit status a line.
The server ends when its input ends.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

# Imported by the server, so that no fork has to.
import ansible.executor.playbook_executor  # noqa: F401
from ansible.cli.playbook import PlaybookCLI
from ansible.utils.path import cleanup_tmp_file


def run(request: Mapping[str, Any]) -> NoReturn:
    """Run ansible-playbook in this process, which ends with its exit status."""
    # The folder of temporary files is the server's. Without this the first fork would remove it.
    atexit.unregister(cleanup_tmp_file)
    redirect(0, os.devnull, os.O_RDONLY)
    redirect(1, request["stdout"], os.O_WRONLY)
    redirect(2, request["stderr"], os.O_WRONLY)
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.exit(PlaybookCLI.cli_executor(["ansible-playbook", *request["arguments"]]))


def redirect(descriptor: int, path: str, mode: int) -> None:
    file = os.open(path, mode)
    os.dup2(file, descriptor)
    os.close(file)


def serve() -> None:
    """Answer the requests one after another."""
    for line in sys.stdin:
        fork = os.fork()
        if not fork:
            run(json.loads(line))
        _, status = os.waitpid(fork, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
