"""playbooks/verify.yml looks at every unit that the roles start, and says what to do about an idle one.

fake_systemctl answers in place of systemd; that the real units run is for tests/deploy. What is said
of the policies of all nodes is tried with answers of nodes as variables.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, ROOT, ansible_playbook

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


def play_of(playbook: str, name: str) -> dict[str, Any]:
    """Return a play of a playbook of the repository."""
    plays = yaml.safe_load((ROOT / "playbooks" / playbook).read_text())
    (play,) = (each for each in plays if each["name"] == name)
    return dict(play)


def run(
    folder: Path, play: dict[str, Any], groups: dict[str, object], *arguments: str, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run a play on hosts that are all this machine."""
    # playbook_dir is where a playbook lies.
    playbook = folder / "playbooks" / "play.yml"
    playbook.parent.mkdir()
    playbook.write_text(yaml.safe_dump([play]))
    (folder / "roles").symlink_to(ROOT / "roles")
    own = {**LOCAL, "ansible_become": False, **variables}
    inventory = {"all": {"children": groups, "vars": own}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    return ansible_playbook("-i", folder / "hosts.yml", playbook, *arguments, path=folder / "bin")


def verify_units(folder: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the play about units on one host in all groups."""
    children: dict[str, object] = {name: {"hosts": {"all1": {}}} for name in GROUPS}
    return run(folder, play_of("verify.yml", "Required units"), children, **variables)


def tell(
    folder: Path, play: dict[str, Any], task: str, *arguments: str, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run one task of a play on three nodes, which decide by revisions r1 … unless they are named."""
    play["tasks"] = [each for each in play["tasks"] if each["name"] == task]
    decides_by = variables.pop("decides_by", {})
    nodes = {
        name: {"__mcp_server_probe": {"stdout": json.dumps({"policy_revision": revision})}}
        for name, revision in ({"mcp1": "r1", "mcp2": "r1", "mcp3": "r1"} | decides_by).items()
    }
    return run(folder, play, {"mcp_servers": {"hosts": nodes}}, *arguments, **variables)


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

    result = verify_units(tmp_path, postgres_version=17, firewall_admin_networks=["192.0.2.0/24"])

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
    assert "sudo journalctl -n 50 -u opa-bundle.socket -u postgresql@17-main.service" in said
    assert "playbooks/policies.yml playbooks/postgres.yml" in said


class TestPolicies:
    """What is reported about the policies of the nodes."""

    AGREE = "Require the same policies on all nodes"
    PUBLISHED = "Report the policy revision of every node"

    def agree(
        self, folder: Path, *arguments: str, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        play = play_of("verify.yml", "Server nodes")
        return tell(folder, play, self.AGREE, *arguments, **variables)

    def test_all_are_said_to_agree_when_all_were_asked(self, tmp_path: Path) -> None:
        result = self.agree(tmp_path)

        assert result.returncode == 0, result.stdout
        assert "All nodes use the policies r1." in result.stdout
        assert "Not checked" not in result.stdout

    def test_nodes_that_were_not_asked_are_named_instead(self, tmp_path: Path) -> None:
        result = self.agree(tmp_path, "--limit", "!mcp3", decides_by={"mcp3": "r0"})

        said = " ".join(result.stdout.split())
        assert result.returncode == 0, result.stdout
        assert "All nodes" not in said
        assert (
            "mcp1, mcp2 use the policies r1. Not checked, possibly with other policies: mcp3."
            in said
        )

    def test_nodes_that_differ_fail(self, tmp_path: Path) -> None:
        result = self.agree(tmp_path, decides_by={"mcp3": "r0"})

        assert result.returncode != 0
        assert "use different policies: mcp1 r1, mcp2 r1, mcp3 r0." in result.stdout

    @pytest.mark.parametrize(
        ("limit", "nodes", "said"),
        [
            (
                "all",
                ["mcp1", "mcp2", "mcp3"],
                "3 of 3 nodes use the policies r2: mcp1, mcp2, mcp3.",
            ),
            (
                "!mcp3",
                ["mcp1", "mcp2"],
                (
                    "2 of 3 nodes use the policies r2: mcp1, mcp2. Left out, still with their previous"
                    " policies: mcp3."
                ),
            ),
        ],
    )
    @pytest.mark.parametrize("locked", [False, True])
    def test_a_publication_tells_how_many_of_all_nodes_follow_and_a_lockdown(
        self, tmp_path: Path, limit: str, nodes: list[str], said: str, locked: bool
    ) -> None:
        play = play_of("publish_policies.yml", "Publish the policies")
        result = tell(
            tmp_path,
            play,
            self.PUBLISHED,
            *("--limit", limit),
            __opa_revision="r2",
            __opa_published_nodes=nodes,
            opa_lockdown=locked,
        )

        assert result.returncode == 0, result.stdout
        assert ("LOCKED DOWN" in result.stdout) == locked
        assert said in " ".join(result.stdout.split())
        assert ("Left out" in result.stdout) == (limit != "all")
