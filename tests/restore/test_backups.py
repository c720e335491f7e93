"""Backups of a running installation: what they hold, who reads them, and what is refused.

In the order of the file, before test_restore.py destroys the database host.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.installation import Host, Installation
from tests.plays import ROOT, role_of, run_play
from tests.restore.database import audit_rows, make_calls, on_database, wait_for_archive

PROGRAM = "runuser -u postgres -- /usr/local/lib/enterprise-mcp/database-backup"
CONFIG = "/etc/pgbackrest/pgbackrest.conf"
DATABASE = "/var/lib/mcp-backup/database"


def said(text: str) -> str:
    """Return a playbook's output as one line."""
    return " ".join(text.split())


def ask_to_restore(installation: Installation, folder: Path, **variables: Any) -> str:
    """Run the tasks of playbooks/restore.yml that restore; return what they say when they refuse."""
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.import_tasks": str(ROOT / "playbooks/tasks/facts.yml")},
        role_of("backup", "restore"),
    ]
    result = run_play(
        folder,
        [{**task, "become": True} for task in tasks],
        inventory=installation.inventory,
        hosts="postgres",
        variables=variables,
        mitogen=True,
    )
    assert result.returncode != 0, result.stdout
    assert result.stdout, result.stderr
    return said(result.stdout)


def metric(host: Host, name: str) -> float:
    """Return a value of the node exporter's text file."""
    text = host.run("cat /var/lib/prometheus/node-exporter/enterprise_mcp_backup.prom")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    return float(values[f"enterprise_mcp_{name}"])


@pytest.mark.anyio
async def test_a_backup_is_made_verified_and_told(installation: Installation) -> None:
    await make_calls(installation, "before", 6)

    told = said(installation.play("playbooks/backup.yml").require().output)

    assert "(incr) of db1 in backup1:/var/lib/mcp-backup" in told
    assert "verified" in told
    assert "The state of the controller is in /var/lib/mcp-backup/state/state-" in told
    assert metric(on_database(installation), "backup_repository_up") == 1
    assert metric(on_database(installation), "backup_success") == 1


def test_the_backup_host_holds_nothing_that_it_can_read(installation: Installation) -> None:
    (repository,) = installation.members("backup")
    names = ("backup_passphrase", "backup_installation")
    secrets = [*installation.secret_lines().values(), *map(installation.secret, names)]

    for folder in ("/var/lib/mcp-backup", "/etc", "/home", "/root"):
        assert repository.lines_with(secrets, f"grep -raF '' {folder}") == 0
    # A row of the audit log, and a table's name in the dump of the catalogue.
    assert repository.run(f"find {DATABASE} -type f | wc -l").strip() != "0"
    assert repository.run(f"grep -rlaF 'cmdb_query_assets' {DATABASE} || true") == ""


def test_the_account_of_the_database_host_can_only_use_sftp(installation: Installation) -> None:
    database, (repository,) = on_database(installation), installation.members("backup")
    options = (
        "-i /etc/pgbackrest/id_ecdsa -o UserKnownHostsFile=/etc/pgbackrest/known_hosts"
        " -o BatchMode=yes"
    )

    shell = database.attempt(f"ssh {options} mcp-backup@{repository.address} id")
    tunnel = database.attempt(
        f"timeout 20 ssh {options} -o ExitOnForwardFailure=yes -N -R 9999:127.0.0.1:22"
        f" mcp-backup@{repository.address}"
    )

    assert b"sftp connections only" in shell.stdout + shell.stderr
    assert tunnel.returncode not in (0, 124)


@pytest.mark.parametrize("path", [CONFIG, "/etc/pgbackrest/id_ecdsa"])
def test_only_postgresql_reads_the_passphrase_and_the_key(
    installation: Installation, path: str
) -> None:
    assert on_database(installation).run(f"stat -c '%U %a' {path}") == "postgres 600\n"


def test_a_drill_restores_compares_and_removes(
    installation: Installation, record_testsuite_property: Any
) -> None:
    database = on_database(installation)
    wait_for_archive(installation)

    told = said(installation.play("playbooks/restore_drill.yml").require().output)

    assert "can be restored" in told
    assert metric(database, "restore_drill_success") == 1
    assert database.run("ls /var/lib/postgresql") == "17\n"


def test_a_drill_fails_when_the_restored_data_differ(installation: Installation) -> None:
    database = on_database(installation)
    # Not the first row: the retention may drop those.
    sql = (
        "delete from audit.events where (event_id, phase) ="
        " (select event_id, phase from audit.events order by time offset 3 limit 1)"
    )
    # Rows of the last minute are not compared; these are moved to yesterday and archived first.
    older = "update audit.events set time = time - interval '10 minutes'"
    psql = "psql -XAtq -h /run/postgresql -U postgres -d mcp -c"
    database.run(f"{psql} {shlex.quote(older)}")
    wait_for_archive(installation)
    database.run(f"{psql} {shlex.quote(sql)}")

    failed = installation.play("playbooks/restore_drill.yml")
    wait_for_archive(installation)

    assert failed.rc != 0
    assert "The restored database has" in said(failed.output)
    assert metric(database, "restore_drill_success") == 0
    assert database.run("ls /var/lib/postgresql") == "17\n"
    installation.play("playbooks/restore_drill.yml").require()
    assert metric(database, "restore_drill_success") == 1


def test_a_repository_that_is_away_is_told(installation: Installation) -> None:
    database, (repository,) = on_database(installation), installation.members("backup")
    route = f"unreachable {repository.address}/32"
    database.run(f"ip route add {route}")
    try:
        failed = installation.play("playbooks/backup.yml")
        database.systemctl("start", "mcp-backup-metrics.service")
        away = metric(database, "backup_repository_up")
    finally:
        database.run(f"ip route del {route}")
    database.systemctl("start", "mcp-backup-metrics.service")

    assert failed.rc != 0
    assert "The backups in backup1:/var/lib/mcp-backup cannot be read." in said(failed.output)
    assert away == 0
    assert metric(database, "backup_repository_up") == 1


class TestRefusedRestores:
    """The database stays as it is."""

    @pytest.fixture(autouse=True)
    def unchanged(self, installation: Installation) -> Any:
        before = audit_rows(installation)
        yield
        assert audit_rows(installation) == before
        assert on_database(installation).attempt("ls /var/lib/postgresql/*.json").returncode != 0

    def test_of_another_installation(self, installation: Installation, tmp_path: Path) -> None:
        answer = ask_to_restore(installation, tmp_path, secrets_backup_installation="another")

        assert "are of another installation" in answer

    def test_with_a_wrong_passphrase(self, installation: Installation, tmp_path: Path) -> None:
        database = on_database(installation)
        database.run(
            f"cp -a {CONFIG} /root/kept && sed -i 's/^repo1-cipher-pass=.*/&wrong/' {CONFIG}"
        )
        try:
            answer = ask_to_restore(installation, tmp_path)
        finally:
            database.run(f"mv /root/kept {CONFIG}")

        assert "The repository cannot be decrypted." in answer

    def test_over_newer_data(self, installation: Installation, tmp_path: Path) -> None:
        answer = ask_to_restore(installation, tmp_path)

        assert "has audit rows up to" in answer
        assert "-e restore_replace=true" in answer

    def test_to_a_time_before_the_oldest_backup(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        answer = ask_to_restore(installation, tmp_path, restore_to="2020-01-01 00:00:00+00")

        assert "The oldest backup in backup1:/var/lib/mcp-backup ended at" in answer

    @pytest.mark.parametrize("when", ["yesterday", "2026-11-30 12:00:00"])
    def test_to_a_time_without_a_zone(
        self, installation: Installation, tmp_path: Path, when: str
    ) -> None:
        assert "Write a time with its zone" in ask_to_restore(
            installation, tmp_path, restore_to=when
        )


class TestState:
    """A controller that lost its state gets it back with the passphrase, and only with it."""

    @pytest.fixture
    def lost(self, installation: Installation, tmp_path: Path) -> Path:
        """The inventory of a controller without a state."""
        inventory = tmp_path / "inventory"
        inventory.mkdir()
        facts = installation.facts["backup1"]
        login = {
            "ansible_host": facts["login_address"],
            "ansible_user": facts["user"],
            "ansible_ssh_private_key_file": facts["key"],
            "ansible_ssh_common_args": facts["ssh_args"],
        }
        groups = {"all": {"children": {"backup": {"hosts": {"backup1": login}}}}}
        (inventory / "hosts.yml").write_text(yaml.safe_dump(groups))
        return inventory

    def test_the_wrong_passphrase_is_refused(
        self, installation: Installation, lost: Path, tmp_path: Path
    ) -> None:
        passphrase = tmp_path / "passphrase"
        passphrase.write_text("a passphrase of somebody else\n")

        result = installation.play(
            *("playbooks/restore_state.yml", "-e", f"backup_state_passphrase_file={passphrase}"),
            inventory=lost,
        )

        assert result.rc != 0
        assert "cannot be decrypted with the passphrase" in said(result.output)
        assert not (lost / ".state").exists()

    def test_the_state_comes_back(self, installation: Installation, lost: Path) -> None:
        state = installation.secrets.parent
        arguments = ("-e", f"backup_state_passphrase_file={state}/lab/state-passphrase")

        installation.play("playbooks/restore_state.yml", *arguments, inventory=lost).require()
        again = installation.play("playbooks/restore_state.yml", *arguments, inventory=lost)

        assert files(lost / ".state") == files(state)
        assert "has a state already" in said(again.output)


def files(state: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and content of each file of a state, without the lab's own."""
    return {
        str(path.relative_to(state)): (path.stat().st_mode, path.read_bytes())
        for path in state.rglob("*")
        if path.is_file() and path.relative_to(state).parts[0] != "lab"
    }


def test_the_program_describes_the_repository(installation: Installation) -> None:
    told = json.loads(on_database(installation).run(f"{PROGRAM} describe"))

    first, *later = [each["type"] for each in told["backups"]]
    assert first == "full"
    assert set(later) == {"incr"}
    assert {each["installation"] for each in told["backups"]} == {
        installation.secret("backup_installation")
    }
