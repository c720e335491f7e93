"""playbooks/verify.yml looks at every unit that the roles start, and says what to do about an idle one.

fake_systemctl answers in place of systemd; that the real units run is for tests/deploy.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")
# The umbrella of all clusters: enabled, so that they start with the host, and always active.
UMBRELLA = "postgresql.service"


def fake_systemctl(folder: Path, **states: str) -> Path:
    """Write a systemctl that says active for every unit but those named, and notes what it was asked."""
    asked = folder / "asked"
    cases = "".join(f'    {unit}) echo "{state}" ;;\n' for unit, state in states.items())
    program = folder / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\nshift\n"
        f'for unit; do\n  echo "$unit" >>{asked}\n  case $unit in\n{cases}    *) echo active ;;\n'
        f"  esac\ndone\nexit {3 if states else 0}\n"
    )
    program.chmod(0o755)
    return asked


def verify_units(folder: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the play of verify.yml about units on one host in all groups, which is this machine."""
    plays = yaml.safe_load((ROOT / "playbooks/verify.yml").read_text())
    (play,) = (each for each in plays if each["name"] == "Units that have to run")
    # playbook_dir is where a playbook lies.
    playbook = folder / "playbooks" / "play.yml"
    playbook.parent.mkdir()
    playbook.write_text(yaml.safe_dump([play]))
    (folder / "roles").symlink_to(ROOT / "roles")
    children: dict[str, object] = {name: {"hosts": {"all1": {}}} for name in GROUPS}
    local = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_become": False,
    }
    inventory = {"all": {"children": children, "vars": {**local, **variables}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(folder / "hosts.yml"), str(playbook)),
        ],
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "COLUMNS": "1000",
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def started_by_roles() -> set[str]:
    """Return the units that the roles enable, with the variables of the roles in place."""
    return {
        unit
        for path in ROOT.glob("roles/*/tasks/service.yml")
        for unit in _enabled(yaml.safe_load(path.read_text()), _variables(path.parents[1]))
    }


def _enabled(tasks: list[dict[str, Any]], variables: dict[str, Any]) -> Iterator[str]:
    for task in tasks:
        yield from _enabled(task.get("block", []), variables)
        unit = task.get("ansible.builtin.systemd_service", {})
        if unit.get("state") == "started" or unit.get("enabled"):
            for item in task.get("loop", [""]):
                name = unit["name"].replace("{{ item }}", item)
                while "{{" in name:
                    name = re.sub(r"\{\{ (\w+) \}\}", lambda m: str(variables[m[1]]), name)
                yield name


def _variables(role: Path) -> dict[str, Any]:
    variables: dict[str, Any] = yaml.safe_load((role / "vars/main.yml").read_text())
    return {**variables, "postgres_version": 17}


def test_every_unit_that_a_role_starts_is_looked_at(tmp_path: Path) -> None:
    asked = fake_systemctl(tmp_path)

    result = verify_units(tmp_path, postgres_version=17)

    assert result.returncode == 0, result.stdout
    assert set(asked.read_text().split()) == started_by_roles() - {UMBRELLA}


def test_the_version_of_postgresql_is_that_of_the_distribution(tmp_path: Path) -> None:
    asked = fake_systemctl(tmp_path)
    os_release = Path("/etc/os-release").read_text()
    version = {"12": 15, "13": 17}[re.findall(r'^VERSION_ID="(\d+)"', os_release, re.MULTILINE)[0]]

    assert verify_units(tmp_path).returncode == 0
    assert f"postgresql@{version}-main.service" in asked.read_text().split()


def test_a_unit_that_does_not_run_is_named_with_what_to_do(tmp_path: Path) -> None:
    stopped = {"postgresql@17-main.service": "failed", "opa-bundle.socket": "inactive"}
    fake_systemctl(tmp_path, **stopped)

    result = verify_units(tmp_path, postgres_version=17)

    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert "opa-bundle.socket is inactive, postgresql@17-main.service is failed" in said
    assert "journalctl -n 50 -u opa-bundle.socket -u postgresql@17-main.service" in said
    assert "playbooks/policies.yml playbooks/postgres.yml" in said
