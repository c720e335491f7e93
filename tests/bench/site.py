"""Times site.yml on an installation that has nothing to change, and counts the modules that it executes.

Run `make demo` first; then `make bench-site` (or `python -m tests.bench.site INVENTORY`). Prints
one row for Ansible's own strategy and one for Mitogen.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.plays import ROOT, ansible_environment


@dataclass(frozen=True)
class Run:
    """What one run took: wall and CPU seconds of the controller, modules by role or playbook."""

    wall_s: float
    cpu_s: float
    changed: int
    modules: Counter[str]


def run(inventory: Path, *, mitogen: bool) -> Run:
    """Run site.yml and measure it.

    Raises:
        RuntimeError: the run failed; the message has the end of its output.
    """
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as lines:
        environment = ansible_environment(mitogen=mitogen) | {
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).with_name("plugins")),
            "ANSIBLE_CALLBACKS_ENABLED": "modules_run",
            "MODULES_RUN_FILE": lines.name,
        }
        before, began = _cpu_s(), time.monotonic()
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "site.yml"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        wall_s, cpu_s = time.monotonic() - began, _cpu_s() - before
        if done.returncode != 0:
            raise RuntimeError(f"site.yml failed:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")
        modules = Counter(
            _place(json.loads(line)["task"]) for line in Path(lines.name).read_text().splitlines()
        )
    changed = sum(int(number) for number in re.findall(r"changed=(\d+)", done.stdout))
    return Run(wall_s, cpu_s, changed, modules)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _place(task: str) -> str:
    """Return the role of a task, or the playbook."""
    found = re.search(r"/(?:roles|playbooks)/(\w+)", task)
    return found[1] if found else task


def main(arguments: list[str]) -> int:
    """Print the table."""
    inventory = Path(arguments[0] if arguments else ROOT / "inventories/lab")
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} at the beginning\n")
    print("| strategy | wall s | CPU s of the controller | modules | changed |")
    print("|---|---|---|---|---|")
    for name, mitogen in (("Ansible's own", False), ("Mitogen", True)):
        measured = run(inventory, mitogen=mitogen)
        print(
            f"| {name} | {measured.wall_s:.0f} | {measured.cpu_s:.0f} "
            f"| {measured.modules.total()} | {measured.changed} |"
        )
    places = ", ".join(f"{place} {count}" for place, count in measured.modules.most_common())
    print(f"\nModules by role or playbook: {places}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
