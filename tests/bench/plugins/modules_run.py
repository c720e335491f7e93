"""Ansible callback that writes a line for each module that a run executes: host, play, task, module.

The file is named by MODULES_RUN_FILE. Actions that run on the controller only (debug, set_fact,
assert) execute no module; template and copy execute two, and a loop executes one for each item.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase
from ansible_mitogen.mixins import ActionModuleMixin

DOCUMENTATION = """
name: modules_run
type: aggregate
short_description: Write a line for each module that is executed
description: For tests/bench/site.py.
"""


class CallbackModule(CallbackBase):
    """Wraps the method by which every action executes a module."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "modules_run"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._file = Path(os.environ["MODULES_RUN_FILE"])
        self._wrap(ActionBase)
        self._wrap(ActionModuleMixin)

    def _wrap(self, owner: Any) -> None:
        execute = owner._execute_module
        file = self._file

        @functools.wraps(execute)
        def counted(action: Any, *arguments: Any, **options: Any) -> Any:
            name = options.get("module_name") or (arguments or [None])[0] or action._task.action
            line = json.dumps(
                {
                    "host": action._connection._play_context.remote_addr,
                    "task": action._task.get_path(),
                    "name": action._task.get_name(),
                    "module": name,
                }
            )
            with file.open("a") as lines:
                lines.write(line + "\n")
            return execute(action, *arguments, **options)

        owner._execute_module = counted
