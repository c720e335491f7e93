"""The role mcp_server restarts a node when anything that the server read at its start has changed.

All cases are decided in one run of the role's tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, ROOT, role_of, run_play

_TOLD = "case={{ case }} stale={{ __mcp_server_stale }}"
# What differs from what the server was started with.
_CHANGES: dict[str, dict[str, Any]] = {
    "release": {"__mcp_server_release": "0.1.0-def"},
    "setting": {"mcp_server_settings": {"log": {"level": "DEBUG"}}},
    "unit": {"mcp_server_memory_max": "1G"},
    "credential": {"mcp_server_jwt_secret": "d" * 32},
    "new_credential": {"mcp_server_credentials": {"grafana_token": "glsa"}},
    "authority": {"pki_ca_certificate_file": "tomorrow.pem"},
}


def node(folder: Path) -> dict[str, Any]:
    """Make the folders of a node with two releases, and return the role's variables for it."""
    config = folder / "etc"
    for path in (config / "credentials", config / "credentials.next"):
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
    for release in ("0.1.0-abc", "0.1.0-def"):
        program = folder / "releases" / release / "bin/mcpctl"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        (folder / "releases" / release / ".complete").write_text(release)
    return {
        "mcp_server_jwt_secret": "a" * 32,
        "mcp_server_redis_password": "b" * 32,
        "mcp_server_database_password": "c" * 32,
        "pki_ca_certificate_file": "today.pem",
        "__mcp_server_release": "0.1.0-abc",
        "__mcp_server_release_dir": f"{folder}/releases/{{{{ __mcp_server_release }}}}",
        "__mcp_server_is_installed": True,
        "__mcp_server_config_dir": str(config),
        "__mcp_server_current": str(folder / "current"),
        "__mcp_server_state_dir": str(folder / "state"),
        "__mcp_server_unit_file": str(folder / "unit"),
        "__mcp_server_user": "root",
    }


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """By case: whether the role restarts a node whose last start was after the case `first`."""
    folder = tmp_path_factory.mktemp("node")
    authorities = {"today": "one", "tomorrow": "another", "elsewhere": "one"}
    for name, content in authorities.items():
        (folder / f"{name}.pem").write_text(content)
    as_before = {"again": {}, "elsewhere": {"pki_ca_certificate_file": "elsewhere.pem"}}
    before = node(folder)
    tasks: list[dict[str, Any]] = []
    for case, different in {"first": {}, **as_before, **_CHANGES, "reverted": {}}.items():
        variables = {**before, **different, "case": case}
        variables["pki_ca_certificate_file"] = str(folder / variables["pki_ca_certificate_file"])
        tasks += [
            *({**role_of("mcp_server", name), "vars": variables} for name in ("write", "decide")),
            {"ansible.builtin.debug": {"msg": _TOLD}, "vars": {"case": case}},
        ]
        if case == "first":
            tasks.append({**started(), "vars": variables})
        else:
            # The next case begins with the files of the last start; `write` without a change.
            tasks.append({**role_of("mcp_server", "write"), "vars": tasks[0]["vars"]})
    done = run_play(
        folder,
        tasks,
        inventory=ROOT / "inventories/lab",
        hosts="mcp1",
        variables=LOCAL,
        as_root=True,
        mitogen=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(r"case=(\w+)\s+stale=(\w+)", done.stdout)
    return {case: whether == "True" for case, whether in said}


def started() -> dict[str, Any]:
    """Return the task of the role that notes a start."""
    (activate,) = (
        task
        for task in yaml.safe_load((ROOT / "roles/mcp_server/tasks/activate.yml").read_text())
        if "block" in task
    )
    (note,) = (
        task
        for task in activate["block"]
        if task.get("enterprise.mcp.loaded_files", {}).get("loaded")
    )
    return dict(note)


def test_a_node_that_was_never_started_is_started(stale: Mapping[str, bool]) -> None:
    assert stale["first"]


@pytest.mark.parametrize("case", ["again", "elsewhere", "reverted"])
def test_a_node_that_was_started_with_the_same_is_left_alone(
    stale: Mapping[str, bool], case: str
) -> None:
    """The same authority in another file is the same; so are files that were never installed."""
    assert not stale[case]


@pytest.mark.parametrize("case", _CHANGES)
def test_a_node_is_restarted_when_what_it_reads_at_its_start_has_changed(
    stale: Mapping[str, bool], case: str
) -> None:
    assert stale[case]
