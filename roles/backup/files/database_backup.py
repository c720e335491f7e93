#!/usr/bin/python3
"""What pgBackRest does not do itself on the database host: metrics, restores and restore drills.

Usage: database-backup describe | data | record TYPE | metrics | restore | drill
Runs as postgres. The settings are in /etc/pgbackrest/enterprise-mcp.json. The answer is one JSON object
on the standard output. What fails is the member `error`, and the exit status is 1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/pgbackrest/enterprise-mcp.json")
# The object identifiers of databases that are no part of a new cluster begin here.
_FIRST_OWN_DATABASE = 16384
_START_S = 24 * 3600
# Rows of the last minute may be in the database before the archive has them.
_BOUNDS = """
select json_build_object('first', min(time), 'last', max(time) - interval '1 minute') from audit.events
"""
_COUNT = "select to_json(count(*)) from audit.events where time between :'first' and :'last'"
_TABLES = """
select json_build_object('audit', to_regclass('audit.events') is not null,
                         'version', to_regclass('configuration.schema_version') is not null)
"""
_AUDIT = """
select json_build_object('rows', count(*), 'last', extract(epoch from max(time)),
                         'last_text', coalesce(max(time)::text, ''))
  from audit.events
"""
_VERSION = "select to_json(coalesce(max(version_num), '')) from configuration.schema_version"
_ARCHIVER = """
select json_build_object(
    'last', coalesce(extract(epoch from last_archived_time), 0),
    'failing', coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false))
  from pg_stat_archiver
"""


class Failed(Exception):
    """The message says to an operator what happened and what to do."""


@dataclass(frozen=True)
class Settings:
    """Where the cluster is.

    Attributes:
        data_dir: the data directory of the cluster.
        config_dir: the directory of postgresql.conf.
        bin_dir: the programs of this version of PostgreSQL.
        socket_dir: the directory of the cluster's Unix socket.
        state_dir: results of the last backup, restore and drill; metrics.
        request: the restore that is requested. PostgreSQL does not start while the file exists.
        drill_dir: the data directory of the throw-away instance.
    """

    stanza: str
    data_dir: Path
    config_dir: Path
    bin_dir: Path
    socket_dir: Path
    port: int
    database: str
    state_dir: Path
    request: Path
    drill_dir: Path

    @classmethod
    def read(cls, path: Path = SETTINGS) -> Settings:
        """Return the settings that the role `backup` has written."""
        values: dict[str, Any] = json.loads(path.read_text())
        paths = {name: Path(text) for name, text in values.items() if name not in _PLAIN}
        return cls(**{**values, **paths})


_PLAIN = ("stanza", "port", "database")


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file atomically."""
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def run(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program and return its exit status and output."""
    return subprocess.run(
        argv, input=stdin, capture_output=True, text=True, errors="replace", check=False
    )


def query(settings: Settings, sql: str, socket_dir: Path | None = None, **variables: str) -> Any:
    """Return the JSON value that a statement selects.

    Args:
        socket_dir: where the instance listens; without it, the cluster.
        variables: what stands in the statement as `:'name'`.

    Raises:
        Failed: PostgreSQL does not answer, or refuses the statement.
    """
    given = [f"--set={name}={value}" for name, value in variables.items()]
    done = run(
        *(
            "psql",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            *given,
            "-U",
            "postgres",
            "-d",
            settings.database,
        ),
        *("-h", str(socket_dir or settings.socket_dir), "-p", str(settings.port), "-f", "-"),
        stdin=sql,
    )
    if done.returncode != 0:
        raise Failed(f"PostgreSQL: {done.stderr.strip()}")
    return json.loads(done.stdout)


def pgbackrest(settings: Settings, command: str, *options: str) -> str:
    """Run pgBackRest and return its standard output.

    Raises:
        Failed: with the errors of pgBackRest.
    """
    done = run("pgbackrest", f"--stanza={settings.stanza}", *options, command)
    if done.returncode != 0:
        raise Failed(explain(f"{done.stdout}\n{done.stderr}"))
    return done.stdout


# Characters of an error of pgBackRest that quotes what it could not decrypt.
_LONGEST = 300


def explain(output: str) -> str:
    """Return what an operator has to know of the output of pgBackRest."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or line.startswith("[")]
    said = "".join(letter for letter in " ".join((errors or lines)[-3:]) if letter.isprintable())
    if "CryptoError" in output or "cipher header" in output or "FormatError" in output:
        return (
            "The repository cannot be decrypted. It belongs to another installation, or the secret"
            f" backup_passphrase is not the one that it was made with. pgBackRest: {said[:_LONGEST]}"
        )
    return f"pgBackRest: {said}"


# --- the repository ------------------------------------------------------------------------------


def describe(settings: Settings) -> dict[str, Any]:
    """Return the backups of the repository, oldest first.

    Raises:
        Failed: the repository does not answer or cannot be decrypted.
    """
    info = pgbackrest(settings, "info", "--output=json", "--log-level-console=off")
    # With a wrong passphrase, the text of the error has control characters.
    told = json.loads(info, strict=False)
    (stanza,) = told or [{"status": {"code": 2, "message": "none"}, "backup": [], "archive": []}]
    repositories = [
        repo["status"]["message"]
        for repo in stanza.get("repo", [])
        if repo["status"]["code"] not in _EMPTY
    ]
    if repositories:
        raise Failed(explain("ERROR: " + " ".join(repositories)))
    return {
        "backups": [
            {
                "label": each["label"],
                "type": each["type"],
                "start": each["timestamp"]["start"],
                "stop": each["timestamp"]["stop"],
                "size": each["info"]["size"],
                "stored": each["info"]["repository"].get("delta", 0),
                "installation": each.get("annotation", {}).get("installation", ""),
                "error": bool(each.get("error")),
            }
            for each in stanza["backup"]
        ],
        "stanza": bool(told) and stanza["status"]["code"] != 1,
        "archive_end": max((each["max"] or "" for each in stanza["archive"]), default=""),
    }


# Statuses of a repository that pgBackRest can read: ok, no stanza, no backup.
_EMPTY = (0, 1, 2)


# --- the cluster ---------------------------------------------------------------------------------


def data(settings: Settings) -> dict[str, Any]:
    """Return what the cluster holds: whether it has data, and the time of its last audit row.

    `last` is null when there is none, and `running` is false when PostgreSQL does not answer.
    """
    own = has_database(settings.data_dir)
    found: dict[str, Any] = {"own": own, "running": False, "last": None, "rows": 0}
    if settings.request.exists():
        return found | {"request": json.loads(settings.request.read_text())}
    try:
        if own:
            return found | {"running": True, **audit(settings)}
    except Failed as failed:
        return found | {"reason": str(failed)}
    return found


def has_database(data_dir: Path) -> bool:
    """Return whether a cluster has a database besides those of a new cluster."""
    base = data_dir / "base"
    return base.is_dir() and any(
        int(each.name) >= _FIRST_OWN_DATABASE for each in base.iterdir() if each.name.isdigit()
    )


def audit(settings: Settings, socket_dir: Path | None = None) -> dict[str, Any]:
    """Return the number of audit rows, the last one's time (Unix and text), and the schema's version."""
    told: dict[str, Any] = {"rows": 0, "last": None, "last_text": "", "version": ""}
    there = query(settings, _TABLES, socket_dir)
    if there["audit"]:
        told |= query(settings, _AUDIT, socket_dir)
    if there["version"]:
        told["version"] = query(settings, _VERSION, socket_dir)
    return told


@contextmanager
def instance(settings: Settings, data_dir: Path, *options: str) -> Iterator[Path]:
    """Run PostgreSQL on a data directory, without TCP, until the block ends.

    Yields:
        The directory of its Unix socket, as soon as the recovery has ended.

    Raises:
        Failed: PostgreSQL does not start, or cannot recover to the requested time.
    """
    runtime = Path(os.environ["RUNTIME_DIRECTORY"])
    log = runtime / "log"
    given = {
        "config_file": settings.config_dir / "postgresql.conf",
        "data_directory": data_dir,
        "external_pid_file": "",
        "listen_addresses": "",
        "unix_socket_directories": runtime,
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_line_prefix": "",
    }
    words = [f"-c {name}='{value}'" for name, value in given.items()]
    control = [str(settings.bin_dir / "pg_ctl"), "-D", str(data_dir), "-s", "-w"]
    start = run(
        *control, "-t", str(_START_S), "-l", str(log), "-o", " ".join([*words, *options]), "start"
    )
    try:
        if start.returncode != 0:
            raise Failed(_reason(log, start.stderr))
        while query(settings, "select to_json(pg_is_in_recovery())", runtime):
            time.sleep(0.2)
        yield runtime
    except Failed as failed:
        if "recovery ended before" in _text(log):
            raise Failed(_reason(log, str(failed))) from None
        raise
    finally:
        if run(*control, "status").returncode == 0:
            run(*control, "-m", "fast", "stop")


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


def _reason(log: Path, otherwise: str) -> str:
    text = _text(log)
    if "recovery ended before configured recovery target was reached" in text:
        return (
            "The archive ends before the requested time. Choose an earlier time, or leave it out to"
            " restore all that was archived."
        )
    fatal = [line for line in text.splitlines() if "FATAL" in line or "PANIC" in line]
    return f"PostgreSQL does not start: {' '.join(fatal[-3:]) or otherwise.strip()}"


# --- restore -------------------------------------------------------------------------------------


def restore(settings: Settings) -> dict[str, Any]:
    """Do the requested restore; a run after one that was cut begins it again.

    The request is removed last, so PostgreSQL does not start with a part of the data, and no client sees
    the database before it is complete.

    Raises:
        Failed: see `pgbackrest` and `instance`; the request stays.
    """
    began = time.monotonic()
    request = json.loads(settings.request.read_text())
    if not request.get("started"):
        keep(settings, request)
        request["started"] = True
        write(settings.request, json.dumps(request))
    # What is there is an empty cluster, or a part of an earlier attempt.
    empty(settings.data_dir)
    target = request["restore_to"]
    options = ["--type=time", f"--target={target}", "--target-action=promote"] if target else []
    pgbackrest(settings, "restore", *options)
    with instance(settings, settings.data_dir) as socket_dir:
        told = audit(settings, socket_dir)
    told |= {"restore_to": target, "seconds": round(time.monotonic() - began)}
    told["kept"] = request.get("kept", "")
    write(settings.state_dir / "restore.json", json.dumps(told))
    settings.request.unlink()
    return told


def keep(settings: Settings, request: dict[str, Any]) -> None:
    """Move the data directory aside when it has a database, and note in the request where it is."""
    if "kept" not in request and has_database(settings.data_dir):
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        kept = settings.data_dir.with_name(f"{settings.data_dir.name}.before-restore-{moment}")
        # Noted first: a run that is cut after the move must not take the path for free.
        request["kept"] = str(kept)
        write(settings.request, json.dumps(request))
    if request.get("kept") and not Path(request["kept"]).exists():
        settings.data_dir.rename(request["kept"])


def empty(directory: Path) -> None:
    """Make an empty directory of a path, readable by its owner only."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(mode=0o700)


# --- restore drill -------------------------------------------------------------------------------


def drill(settings: Settings) -> dict[str, Any]:
    """Restore all that is archived into a throw-away instance, compare it, and remove it.

    Raises:
        Failed: no room, no backup, or the restored data differ.
    """
    began = time.monotonic()
    told: dict[str, Any] = {"success": False, "time": time.time(), "seconds": 0}
    try:
        backups = describe(settings)["backups"]
        if not backups:
            raise Failed("The repository has no backup. Make one with playbooks/backup.yml.")
        empty(settings.drill_dir)
        free, needed = shutil.disk_usage(settings.drill_dir).free, backups[-1]["size"]
        if free < needed * 1.2:
            raise Failed(
                f"The drill needs {needed * 1.2 / 1e9:.1f} GB in {settings.drill_dir},"
                f" which has {free / 1e9:.1f} GB."
            )
        options = (f"--pg1-path={settings.drill_dir}", "--archive-mode=off")
        pgbackrest(settings, "restore", *options)
        with instance(
            settings, settings.drill_dir, "-c shared_buffers='64MB'", "-c ssl=off"
        ) as socket_dir:
            restored = audit(settings, socket_dir)
            told |= {"backup": backups[-1]["label"], **restored}
            told["compared"] = compare(settings, restored, socket_dir)
        told |= {"success": True, "time": time.time(), "seconds": round(time.monotonic() - began)}
    finally:
        shutil.rmtree(settings.drill_dir, ignore_errors=True)
        write(settings.state_dir / "drill.json", json.dumps(told))
        write_metrics(settings)
    return told


def compare(settings: Settings, restored: Mapping[str, Any], socket_dir: Path) -> int:
    """Return the number of audit rows that the restored database and the running one have in common.

    Raises:
        Failed: they differ.
    """
    version = audit(settings)["version"]
    if version != restored["version"]:
        raise Failed(f"The restored schema has version {restored['version']} instead of {version}.")
    if not restored["rows"]:
        return 0
    here, there = query(settings, _BOUNDS), query(settings, _BOUNDS, socket_dir)
    # The retention may have dropped old rows of either.
    during = {"first": max(here["first"] or "", there["first"]), "last": there["last"]}
    rows = [query(settings, _COUNT, where, **during) for where in (None, socket_dir)]
    if rows[0] != rows[1]:
        raise Failed(f"The restored database has {rows[1]} audit rows instead of {rows[0]}.")
    count: int = rows[0]
    return count


# --- metrics -------------------------------------------------------------------------------------


def record(settings: Settings, kind: str) -> dict[str, Any]:
    """Note how a backup ended, from what systemd tells of the service, and write the metrics."""
    told = {
        "success": os.environ.get("SERVICE_RESULT") == "success",
        "type": kind,
        "time": time.time(),
    }
    write(settings.state_dir / "backup.json", json.dumps(told))
    return told | write_metrics(settings)


def write_metrics(settings: Settings) -> dict[str, Any]:
    """Write the node exporter's text file and return what it says of the repository."""
    told: dict[str, Any] = {"repository": True}
    backups: list[dict[str, Any]] = []
    archiver: dict[str, Any] = {}
    try:
        backups = describe(settings)["backups"]
    except Failed as failed:
        told = {"repository": False, "reason": str(failed)}
    try:
        archiver = query(settings, _ARCHIVER)
    except Failed as failed:
        told["archiver"] = str(failed)
    results = {
        name: json.loads(path.read_text())
        for name in ("backup", "drill")
        if (path := settings.state_dir / f"{name}.json").exists()
    }
    text = "".join(metrics(told["repository"], backups, archiver, results))
    write(settings.state_dir / "metrics.prom", text, 0o644)
    return told


def metrics(
    repository: bool,
    backups: Sequence[Mapping[str, Any]],
    archiver: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    """Yield the lines of the text file (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

    def gauge(name: str, about: str, values: Mapping[str, float]) -> Iterator[str]:
        if values:
            yield f"# HELP enterprise_mcp_{name} {about}\n# TYPE enterprise_mcp_{name} gauge\n"
            for labels, value in values.items():
                yield f"enterprise_mcp_{name}{labels} {value:.15g}\n"

    yield from gauge("backup_repository_up", "Whether the repository answers.", {"": repository})
    last = {each["type"]: each for each in backups if not each["error"]}
    yield from gauge(
        "backup_timestamp_seconds",
        "Unix time at which the last backup of this type ended.",
        {f'{{type="{kind}"}}': each["stop"] for kind, each in last.items()},
    )
    yield from gauge(
        "backup_size_bytes",
        "Size of the database in the last backup of this type.",
        {f'{{type="{kind}"}}': each["size"] for kind, each in last.items()},
    )
    backup, done = results.get("backup"), results.get("drill")
    if backup:
        yield from gauge(
            "backup_success", "Whether the last backup succeeded.", {"": backup["success"]}
        )
    if archiver:
        yield from gauge(
            "wal_archived_timestamp_seconds",
            "Unix time at which the last segment of the write-ahead log was archived.",
            {"": archiver["last"]},
        )
        yield from gauge(
            "wal_archive_failing",
            "Whether the last attempt to archive failed.",
            {"": archiver["failing"]},
        )
    if done:
        yield from gauge(
            "restore_drill_success",
            "Whether the last restore drill succeeded.",
            {"": done["success"]},
        )
        yield from gauge(
            "restore_drill_timestamp_seconds",
            "Unix time of the last restore drill.",
            {"": done["time"]},
        )
        yield from gauge(
            "restore_drill_duration_seconds",
            "Duration of the last restore drill.",
            {"": done["seconds"]},
        )


COMMANDS: Mapping[str, Callable[[Settings], dict[str, Any]]] = {
    "describe": describe,
    "data": data,
    "metrics": write_metrics,
    "restore": restore,
    "drill": drill,
}


def main(arguments: Sequence[str]) -> int:
    """Do what the first argument says and print the answer."""
    settings = Settings.read()
    try:
        if arguments[0] == "record":
            told = record(settings, arguments[1])
        else:
            told = COMMANDS[arguments[0]](settings)
    except Failed as failed:
        print(json.dumps({"error": str(failed)}))
        sys.stderr.write(f"{failed}\n")
        return 1
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
