"""The role postgres makes no empty cluster beside the data of another version.

All cases are checked in one run of the role's tasks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.plays import LOCAL, role_of, run_play

GROUPS = ("mcp_servers", "postgres")
# By case: the clusters of the host, and postgres_version.
ACCEPTED: dict[str, tuple[tuple[str, ...], object]] = {
    "none": ((), 17),
    "its own": (("17/main",), 17),
    "taken along": (("15/main", "17/main"), "17"),
    "kept": (("15/main",), "15"),
    "of somebody else": (("15/other",), 17),
}
LEFT_BEHIND = "left behind"


def check(folder: Path, clusters: tuple[str, ...], wanted: object) -> dict[str, Any]:
    """Return the task that runs the role's checks on a host with these clusters."""
    folder.mkdir()
    for cluster in clusters:
        (folder / cluster / "base").mkdir(parents=True)
    variables = {
        "postgres_version": wanted,
        "postgres_owner_password": "o" * 16,
        "postgres_server_password": "s" * 16,
        "postgres_auditor_password": "a" * 16,
        "__postgres_clusters_dir": str(folder),
    }
    return {
        "block": [role_of("postgres", "preflight") | {"vars": variables}],
        "rescue": [{"ansible.builtin.debug": {"msg": "refused"}}],
    }


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the role's checks say about each case."""
    folder = tmp_path_factory.mktemp("clusters")
    tasks = [
        task
        for case, host in (ACCEPTED | {LEFT_BEHIND: (("15/main",), 17)}).items()
        for task in (
            {"ansible.builtin.debug": {"msg": f"case={case}."}},
            check(folder / case, *host),
        )
    ]
    hosts = {"all1": {"base_address": "192.0.2.1", **LOCAL}}
    done = run_play(
        folder,
        tasks,
        inventory={"all": {"children": {name: {"hosts": hosts} for name in GROUPS}}},
        mitogen=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, *parts = re.split(r"msg: case=([\w ]+)\.", done.stdout)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_host_is_accepted_where_no_data_would_be_left_behind(
    said: dict[str, str], case: str
) -> None:
    assert "refused" not in said[case]


def test_data_of_the_debian_release_before_is_not_left_behind(said: dict[str, str]) -> None:
    about = " ".join(said[LEFT_BEHIND].split())

    assert "refused" in about
    assert "all1 has data of PostgreSQL 15 in" in about
    assert "no data of version 17" in about
    assert "pg_upgradecluster" in about
    assert "or set postgres_version to 15" in about
