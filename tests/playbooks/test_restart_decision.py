"""What makes the role mcp_server restart a node: whatever the server read when it was started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.plays import LOCAL, role_of, run_play

ROOT = Path(__file__).resolve().parents[2]
_TOLD = "fingerprint={{ __mcp_server_fingerprint }} stale={{ __mcp_server_stale }}"


def decide(folder: Path, **different: Any) -> tuple[str, str]:
    """Let the role decide on this machine; return the fingerprint and whether the node is stale."""
    settings: dict[str, Any] = {
        **LOCAL,
        "mcp_server_jwt_secret": "a" * 32,
        "mcp_server_redis_password": "b" * 32,
        "mcp_server_database_password": "c" * 32,
        "pki_ca_certificate_file": str(authority(folder, "of today")),
        "__mcp_server_release": "0.1.0-abc",
        "__mcp_server_current": str(folder / "current"),
        "__mcp_server_applied": str(folder / "applied"),
        **different,
    }
    done = run_play(
        folder,
        [role_of("mcp_server", "decide"), {"ansible.builtin.debug": {"msg": _TOLD}}],
        inventory=ROOT / "inventories/lab",
        hosts="mcp1",
        variables=settings,
    )
    said = re.search(r"fingerprint=(\w{64})\s+stale=(\w+)", done.stdout)
    assert said is not None, done.stdout + done.stderr
    return said[1], said[2]


def authority(folder: Path, content: str, name: str = "ca.pem") -> Path:
    """Write the certificate of an authority, or what stands for one."""
    path = folder / name
    path.write_text(content)
    return path


def test_a_node_that_was_started_with_all_this_is_left_alone(tmp_path: Path) -> None:
    fingerprint, before = decide(tmp_path)
    (tmp_path / "applied").write_text(f"{fingerprint}\n")

    # The same authority in another file is the same.
    elsewhere = authority(tmp_path, "of today", "elsewhere.pem")
    again, after = decide(tmp_path, pki_ca_certificate_file=str(elsewhere))

    assert (before, after) == ("True", "False")
    assert again == fingerprint


@pytest.mark.parametrize(
    "different",
    [
        {"__mcp_server_release": "0.1.0-def"},
        {"mcp_server_log_level": "DEBUG"},
        {"mcp_server_memory_max": "1G"},
        {"mcp_server_jwt_secret": "d" * 32},
        {"authority": "of tomorrow"},
    ],
    ids=["release", "setting", "unit", "credential", "authority"],
)
def test_a_node_is_restarted_for_whatever_it_reads_at_its_start(
    tmp_path: Path, different: dict[str, Any]
) -> None:
    fingerprint, _ = decide(tmp_path)
    (tmp_path / "applied").write_text(f"{fingerprint}\n")
    if "authority" in different:
        new = authority(tmp_path, different["authority"], "new.pem")
        different = {"pki_ca_certificate_file": str(new)}

    _, stale = decide(tmp_path, **different)

    assert stale == "True"
