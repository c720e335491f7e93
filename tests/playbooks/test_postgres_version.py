"""The role postgres makes no empty cluster beside the data of another version."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plays import LOCAL, role_of, run_play

GROUPS = ("mcp_servers", "postgres")


def preflight(folder: Path, *clusters: str, wanted: object) -> subprocess.CompletedProcess[str]:
    """Run the role's checks on a host with these clusters."""
    for cluster in clusters:
        (folder / "clusters" / cluster / "base").mkdir(parents=True)
    (folder / "clusters").mkdir(exist_ok=True)
    hosts = {"all1": {"base_address": "192.0.2.1", **LOCAL}}
    return run_play(
        folder,
        [role_of("postgres", "preflight")],
        inventory={"all": {"children": {name: {"hosts": hosts} for name in GROUPS}}},
        variables={
            "postgres_version": wanted,
            "postgres_owner_password": "o" * 16,
            "postgres_server_password": "s" * 16,
            "__postgres_clusters_dir": str(folder / "clusters"),
        },
    )


@pytest.mark.parametrize(
    ("clusters", "wanted"),
    [
        ((), 17),
        (("17/main",), 17),
        (("15/main", "17/main"), "17"),
        (("15/main",), "15"),
        (("15/other",), 17),
    ],
    ids=["none", "its own", "taken along", "kept", "of somebody else"],
)
def test_a_host_is_accepted_where_no_data_would_be_left_behind(
    tmp_path: Path, clusters: tuple[str, ...], wanted: object
) -> None:
    result = preflight(tmp_path, *clusters, wanted=wanted)

    assert result.returncode == 0, result.stdout


def test_data_of_the_debian_release_before_is_not_left_behind(tmp_path: Path) -> None:
    result = preflight(tmp_path, "15/main", wanted=17)

    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert "all1 has data of PostgreSQL 15 in" in said
    assert "none of 17" in said
    assert "pg_upgradecluster" in said
    assert "or set postgres_version to 15" in said
