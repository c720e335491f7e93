"""The role mcp_server restarts a node when anything that the server read at its start has changed.

All cases are decided in one run of the role's tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.plays import LOCAL, ROOT, role_of, run_play

_TOLD = "case={{ case }} fingerprint={{ __mcp_server_fingerprint }} stale={{ __mcp_server_stale }}"
# What differs from what the server was started with.
_CHANGES: dict[str, dict[str, Any]] = {
    "release": {"__mcp_server_release": "0.1.0-def"},
    "setting": {"mcp_server_settings": {"log": {"level": "DEBUG"}}},
    "unit": {"mcp_server_memory_max": "1G"},
    "credential": {"mcp_server_jwt_secret": "d" * 32},
    "new_credential": {"mcp_server_credentials": {"grafana_token": "glsa"}},
    "authority": {"pki_ca_certificate_file": "tomorrow.pem"},
}


@dataclass(frozen=True)
class Decision:
    """What the role decided: the fingerprint of what the server would read, and whether it is new."""

    fingerprint: str
    stale: bool


def decide(folder: Path, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Decision]:
    """Let the role decide on this machine for each case, which has variables of its own."""
    tasks: list[dict[str, Any]] = []
    for case, different in cases.items():
        variables: dict[str, Any] = {
            "case": case,
            "mcp_server_jwt_secret": "a" * 32,
            "mcp_server_redis_password": "b" * 32,
            "mcp_server_database_password": "c" * 32,
            "pki_ca_certificate_file": "today.pem",
            "__mcp_server_release": "0.1.0-abc",
            "__mcp_server_current": str(folder / "current"),
            "__mcp_server_applied": str(folder / "applied"),
            **different,
        }
        variables["pki_ca_certificate_file"] = str(folder / variables["pki_ca_certificate_file"])
        tasks += [
            role_of("mcp_server", "decide") | {"vars": variables},
            {"ansible.builtin.debug": {"msg": _TOLD}, "vars": {"case": case}},
        ]
    done = run_play(
        folder,
        tasks,
        inventory=ROOT / "inventories/lab",
        hosts="mcp1",
        variables=LOCAL,
        mitogen=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(r"case=(\w+)\s+fingerprint=(\w{64})\s+stale=(\w+)", done.stdout)
    return {case: Decision(fingerprint, stale == "True") for case, fingerprint, stale in said}


@pytest.fixture(scope="module")
def decisions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Decision]:
    """The decisions about a node that was started after the first of them."""
    folder = tmp_path_factory.mktemp("node")
    authorities = {"today": "one", "tomorrow": "another", "elsewhere": "one"}
    for name, content in authorities.items():
        (folder / f"{name}.pem").write_text(content)
    first = decide(folder, {"first": {}})
    (folder / "applied").write_text(f"{first['first'].fingerprint}\n")
    same = {"again": {}, "elsewhere": {"pki_ca_certificate_file": "elsewhere.pem"}}
    return first | decide(folder, same | _CHANGES)


def test_a_node_that_was_never_started_is_started(decisions: Mapping[str, Decision]) -> None:
    assert decisions["first"].stale


@pytest.mark.parametrize("case", ["again", "elsewhere"])
def test_a_node_that_was_started_with_the_same_is_left_alone(
    decisions: Mapping[str, Decision], case: str
) -> None:
    """The same authority in another file is the same."""
    assert decisions[case] == Decision(decisions["first"].fingerprint, stale=False)


@pytest.mark.parametrize("case", _CHANGES)
def test_a_node_is_restarted_when_what_it_reads_at_its_start_has_changed(
    decisions: Mapping[str, Decision], case: str
) -> None:
    assert decisions[case].stale
