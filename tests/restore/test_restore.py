"""A database host that is destroyed comes back on a bare host, as it was at a moment."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.deploy.installation import Installation
from tests.deploy.snapshots import podman
from tests.plays import ROOT, ansible_environment
from tests.restore.database import (
    audit_rows,
    error_of_call,
    make_calls,
    now,
    on_database,
    sql,
    wait_for_archive,
)

_REQUEST = "/var/lib/postgresql/restore-request.json"
_CONTAINER = "enterprise-mcp-molecule-data-db1"
_DATA = "/var/lib/postgresql/17/main"
_UNIT = "postgresql@17-main.service"


def make_bare_host(installation: Installation) -> None:
    """Make the hosts of the scenario that are not there, as `molecule create` does."""
    playbook = str(ROOT / "molecule/shared/create.yml")
    scenario = installation.inventory.parent
    names = {"MOLECULE_SCENARIO_NAME": "data", "MOLECULE_SCENARIO_DIRECTORY": str(scenario)}
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            installation.inventory,
            playbook,
        ],
        cwd=ROOT,
        env=ansible_environment() | names,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.anyio
async def test_a_destroyed_host_is_restored_to_a_moment(
    installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    installation.wait_until_ready()
    await make_calls(installation, "between", 10)
    moment = now(installation)
    wanted = audit_rows(installation, moment)
    await asyncio.sleep(1)
    await make_calls(installation, "after", 10)
    wait_for_archive(installation)
    arguments = ("-e", f"restore_to={moment}")

    podman("rm", "--force", "--time=0", _CONTAINER)
    installation.wait_until_not_ready()
    refused = await error_of_call(installation, "meanwhile")
    began = time.monotonic()
    make_bare_host(installation)
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill_restore)
        cut = installation.play("playbooks/restore.yml", *arguments)
        killed.result()
    on_database(installation).systemctl("start", _UNIT)
    active = on_database(installation).run(f"systemctl is-active {_UNIT} || true")
    restored = installation.play("playbooks/restore.yml", *arguments).require()
    duration = time.monotonic() - began

    installation.wait_until_ready()
    assert refused == "unavailable"
    assert cut.rc != 0
    assert "PostgreSQL stays stopped." in " ".join(cut.output.split())
    assert active == "inactive\n"
    found = audit_rows(installation, moment)
    assert found == wanted
    assert wanted["rows"] >= 20
    assert sql(installation, "select count(*) from audit.events where user_id = 'after'") == "0"
    await make_calls(installation, "again", 3)
    assert "calls were verified" in " ".join(restored.output.split())
    record_property(
        "restore of a destroyed database host",
        f"{duration:.0f} s with a bare host and a cut run, {wanted['rows']} audit rows",
    )


def kill_restore() -> None:
    """Kill the restore on the host (SIGKILL) as soon as it writes.

    Not over SSH: the new host loads its firewall meanwhile, which ends connections that are older.
    """
    wait = (
        f"timeout 60 sh -c 'until grep -q started.:.true {_REQUEST} && ls {_DATA}/base;"
        " do sleep 0.05; done' >/dev/null 2>&1"
    )
    kill = f"{wait} && systemctl kill --signal=KILL mcp-restore.service"
    for _ in range(10):
        with contextlib.suppress(AssertionError):
            podman("exec", _CONTAINER, "sh", "-c", kill)
            return
    raise AssertionError("the restore did not begin")


@pytest.mark.anyio
async def test_newer_data_is_kept_when_it_is_replaced(installation: Installation) -> None:
    host = on_database(installation)
    installation.wait_until_ready()
    moment = now(installation)
    wanted = audit_rows(installation, moment)
    await asyncio.sleep(1)
    await make_calls(installation, "newer", 3)
    wait_for_archive(installation)

    replaced = installation.play(
        *("playbooks/restore.yml", "-e", f"restore_to={moment}"),
        *("-e", "restore_replace=true"),
    ).require()

    assert audit_rows(installation, moment) == wanted
    assert sql(installation, "select count(*) from audit.events where user_id = 'newer'") == "0"
    assert "17/main.before-restore-" in replaced.output
    assert host.run("ls -d /var/lib/postgresql/17/main.before-restore-*/base") != ""
