"""Every file that a role writes on a host is in its table of what a service has loaded, or is excepted.

A run that ends between the task that writes a file and the handler that it notifies leaves a service
with the old content, and the next run finds the file as it should be. `__ROLE_loads` in the role's
vars/main.yml names the files by handler, and the module enterprise.mcp.loaded_files has the next run
notify that handler (test_loaded_files.py). A file that is missing there is forgotten by such a run;
here it fails a test.

No host is needed: tasks are read from the files of the roles, and Ansible itself resolves the paths.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.plays import ROOT

# The lab is the machine that hosts stand on, and the secrets are made on the controller.
ROLES = sorted({path.name for path in (ROOT / "roles").iterdir()} - {"lab", "secrets"})

# Modules that write a file on a host, and the argument that names it.
WRITERS = {
    "ansible.builtin.blockinfile": "path",
    "ansible.builtin.command": "creates",
    "ansible.builtin.copy": "dest",
    "ansible.builtin.deb822_repository": "name",
    "ansible.builtin.lineinfile": "path",
    "ansible.builtin.shell": "creates",
    "ansible.builtin.template": "dest",
    "ansible.builtin.unarchive": "dest",
    "community.crypto.openssl_privatekey": "path",
}
# Modules that write none. A module that stands in neither list fails the tests.
OTHERS = {
    "ansible.builtin.apt",
    "ansible.builtin.assert",
    "ansible.builtin.debug",
    "ansible.builtin.fail",
    "ansible.builtin.fetch",  # writes on the controller
    "ansible.builtin.file",  # folders and links, and what it removes
    "ansible.builtin.find",
    "ansible.builtin.group",
    "ansible.builtin.import_role",
    "ansible.builtin.import_tasks",
    "ansible.builtin.include_role",
    "ansible.builtin.include_tasks",
    "ansible.builtin.meta",
    "ansible.builtin.package_facts",
    "ansible.builtin.pause",
    "ansible.builtin.service_facts",
    "ansible.builtin.set_fact",
    "ansible.builtin.setup",
    "ansible.builtin.slurp",
    "ansible.builtin.stat",
    "ansible.builtin.systemd_service",
    "ansible.builtin.tempfile",  # on the controller
    "ansible.builtin.uri",
    "ansible.builtin.user",
    "ansible.builtin.wait_for",
    "ansible.builtin.wait_for_connection",
    "community.crypto.certificate_complete_chain",
    "community.crypto.openssl_csr_pipe",
    "community.crypto.openssl_privatekey_info",
    "community.crypto.x509_certificate_info",
    "community.crypto.x509_certificate_pipe",
    "community.postgresql.postgresql_db",
    "community.postgresql.postgresql_privs",
    "community.postgresql.postgresql_query",
    "community.postgresql.postgresql_user",
    "enterprise.mcp.generated_secrets",
    "enterprise.mcp.file_snapshot",  # restores files, with which the role restarts the service
    "enterprise.mcp.loaded_files",
    "enterprise.mcp.wait_for_answer",
}

TLS = "/etc/enterprise-mcp/tls"
# What a run knows and the files of a role do not say; its values stand in the paths below.
KNOWN: dict[str, Any] = {
    "ansible_facts": {"distribution_major_version": "13"},
    "ansible_check_mode": False,
    "groups": {},
    "hostvars": {},
    "inventory_hostname": "host",
    "role_path": "/role",
    "nginx_tls_certificate": "/own/cert.pem",
    "nginx_tls_key": "/own/key.pem",
    "__backup_moment": "TIME",
    "__base_hosts_template_found": {"stat": {"exists": True}},
    "__mcp_server_credential_names": ["NAME"],
    "__mcp_server_release_dir": "/opt/mcp_server/releases/RELEASE",
}

# Files of which no service has to be told, by role.
NOT_LOADED = {
    "backup": {
        "/etc/ssh/mcp-backup.authorized_keys",  # read for each connection
        # pgBackRest and the program read them at each start.
        "/etc/pgbackrest/pgbackrest.conf",
        "/etc/pgbackrest/enterprise-mcp.json",
        "/etc/pgbackrest/id_ecdsa",
        "/etc/pgbackrest/known_hosts",
        "/usr/local/lib/enterprise-mcp/database-backup",
        # A condition of starts, which the role has systemd read at once.
        "/etc/systemd/system/postgresql@.service.d/restore.conf",
        # A request of one restore, and a copy of the controller's state.
        "/var/lib/postgresql/restore-request.json",
        "/var/lib/mcp-backup/state/state-TIME.vault",
    },
    "base": {
        "/etc/hosts",  # read anew for each name
        "/etc/cloud/templates/hosts.debian.tmpl",  # read by the next boot
        "/etc/apt/apt.conf.d/20auto-upgrades",  # read by each run of apt
    },
    "firewall": {
        # The role compares these with a note of the last load and loads the rules itself.
        "/etc/enterprise-mcp/firewall/names",
        "/etc/enterprise-mcp/firewall/rules.next.nft",
        "/etc/enterprise-mcp/firewall/rules.nft",
        "/etc/systemd/system/enterprise-mcp-firewall.service",
        "/etc/systemd/system/enterprise-mcp-firewall-names.service",
        "/etc/systemd/system/enterprise-mcp-firewall-names.timer",
        "/usr/local/lib/enterprise-mcp/firewall-names",
        "/etc/enterprise-mcp/firewall/rules.rollback.nft",  # loaded by a timer of the same run
    },
    "mcp_server": {
        # The role compares these with a note of the last start and restarts the server itself
        # (tasks/decide.yml, tests/playbooks/test_restart_decision.py).
        "/etc/mcp_server/config.next.yaml",
        "/etc/mcp_server/config.yaml",
        "/etc/mcp_server/credentials.next/NAME",
        "/etc/mcp_server/credentials/",
        "/etc/mcp_server/next.service",
        "/etc/systemd/system/mcp-server.service",
        # A release is used only when .complete is there, which is written last.
        "/opt/mcp_server/releases/RELEASE/.complete",
        "/opt/mcp_server/releases/RELEASE/bin/mcpctl",
        "/opt/mcp_server/releases/RELEASE/bin/python",
        "/opt/mcp_server/releases/RELEASE/wheels",
        "/etc/mcp_server/cmdb_seed.json",  # imported by each run
    },
    "node_exporter": {
        "/usr/local/lib/enterprise-mcp/certificate-metrics",  # run by a timer
        # Read again for each connection.
        f"{TLS}/ca.pem",
        f"{TLS}/node-exporter/cert.pem",
        f"{TLS}/node-exporter/key.pem",
    },
    "opa": {
        # OPA asks for it every few seconds.
        "/var/lib/opa/bundle.tar.gz",
        # What to go back to.
        "/var/lib/opa/bundle.previous.tar.gz",
    },
    "pki": {f"{TLS}/ca.pem"},  # the role of each service that reads it has it in its table
    "postgres": {
        # Read when the package makes a cluster.
        "/etc/postgresql-common/createcluster.d/enterprise-mcp.conf",
        "/usr/local/lib/enterprise-mcp/audit-maintenance.sql",  # run by a timer
    },
    "prometheus": {
        # Both servers read them again for each connection.
        f"{TLS}/ca.pem",
        f"{TLS}/alertmanager/cert.pem",
        f"{TLS}/alertmanager/key.pem",
        f"{TLS}/prometheus/cert.pem",
        f"{TLS}/prometheus/key.pem",
    },
    "redis": {
        "/usr/local/sbin/redis-admin",  # run by root and by handlers
        "/etc/redis/admin-password",  # redis-admin reads it each time; its hash is in users.acl
    },
}
# Handlers after which nothing is left to do although no table names them.
NOT_IN_A_TABLE = {
    # The timer does the same soon after.
    ("node_exporter", "Write the certificate metrics"),
}
# Files that a service does not load although the task that writes them notifies a handler: another
# file of the task needs it.
NOT_NEEDED = {
    (
        "mcp_server",
        "Reload the certificate of the server",
        f"{TLS}/ca.pem",
    ),  # its hash is in the unit: a restart
    (
        "opa",
        "Restart the bundle server",
        "/etc/systemd/system/opa.service",
    ),  # one of OPA's own files
    (
        "postgres",
        "Reload PostgreSQL",
        f"{TLS}/ca.pem",
    ),  # the server asks for no certificate of clients
}
# Files that the operator brings to the host.
OPERATORS = {"nginx": {"/own/cert.pem", "/own/key.pem"}}


@dataclass(frozen=True)
class Write:
    """A task that writes a file, and the handlers that it notifies."""

    role: str
    task: str
    path: str
    handlers: frozenset[str]


@dataclass(frozen=True)
class Scope:
    """The variables by which the paths of tasks are resolved."""

    variables: Mapping[str, Any]

    @classmethod
    def of_role(cls, role: str) -> Self:
        variables: dict[str, Any] = {}
        for part in ("defaults", "vars"):
            path = ROOT / "roles" / role / part / "main.yml"
            variables |= (load(path) if path.exists() else None) or {}
        return cls(variables | KNOWN)

    def within(self, variables: Mapping[str, Any]) -> Self:
        return replace(self, variables={**self.variables, **variables})

    def resolve(self, value: Any) -> Any:
        return Templar(loader=DataLoader(), variables=dict(self.variables)).template(value)

    def loop(self, task: Mapping[str, Any]) -> Iterator[Self]:
        """Yield the scope of each item; the scope itself for a task without a loop."""
        name = task.get("loop_control", {}).get("loop_var", "item")
        if "loop" not in task:
            yield self
            return
        for item in self.resolve(task["loop"]):
            yield self.within({name: item})


def load(path: Path) -> Any:
    """Return the content of a file, with templates that Ansible resolves."""
    return DataLoader().load_from_file(str(path), trusted_as_template=True)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tasks_in(
    tasks: Iterable[Mapping[str, Any]], scope: Scope
) -> Iterator[tuple[Mapping[str, Any], Scope]]:
    """Yield the tasks that run on the host, those of blocks included, each with its variables."""
    for task in tasks:
        if task.get("delegate_to") == "localhost":
            continue
        inner = scope.within(task.get("vars", {}))
        if "block" in task:
            parts = (task.get(part, []) for part in ("block", "rescue", "always"))
            for part in parts:
                yield from tasks_in(part, inner)
        else:
            yield task, inner


def module_of(task: Mapping[str, Any], where: str) -> str:
    """Return the module of a task, which has to be a known one."""
    known = WRITERS.keys() | OTHERS
    names = [key for key in task if "." in key]
    assert names, f"{where}: the task '{task.get('name')}' has no module by its full name"
    (name,) = names
    assert name in known, (
        f"{where}: the task '{task.get('name')}' uses {name}. "
        f" Add it to WRITERS in {Path(__file__).name} if it writes a file, else to OTHERS."
    )
    return name


def paths_of(
    tasks: Iterable[Mapping[str, Any]], scope: Scope, where: str
) -> Iterator[tuple[Any, str]]:
    """Yield the tasks that write files, each with the path of one."""
    for task, inner in tasks_in(tasks, scope):
        argument = WRITERS.get(module := module_of(task, where))
        arguments = task[module]
        if argument is None or (argument == "creates" and "creates" not in arguments):
            continue
        for one in inner.loop(task):
            yield task, str(one.resolve(arguments[argument]))


def leaf_paths(include: Mapping[str, Any], scope: Scope) -> Iterator[str]:
    """Yield what a service has to load when the role pki gives it a certificate."""
    pki = Scope.of_role("pki")
    for one in scope.loop(include):
        leaf = pki.within({"pki_leaf_name": one.resolve(include["vars"]["pki_leaf_name"])})
        # A new authority counts as a new certificate (roles/pki/tasks/leaf.yml).
        yield f"{TLS}/ca.pem"
        for file in ("leaf_issued", "leaf_provided"):
            path = ROOT / f"roles/pki/tasks/{file}.yml"
            yield from (
                path for _, path in paths_of(load(path), leaf, f"roles/pki/tasks/{file}.yml")
            )


def handlers_of(task: Mapping[str, Any], variables: Mapping[str, Any]) -> frozenset[str]:
    """Return what a task notifies."""
    handlers = frozenset(as_list(task.get("notify", [])))
    # OPA is restarted by no handler, but by a task that looks at what others have registered.
    if task.get("register", "-") in str(variables.get("__opa_written", "")):
        handlers |= {"OPA"}
    return handlers


def is_leaf(task: Mapping[str, Any]) -> bool:
    """Tell whether a task gives a service a certificate."""
    included = task.get("ansible.builtin.include_role", {})
    return bool(included.get("name") == "pki" and included.get("tasks_from") == "leaf")


@functools.cache
def writes(role: str) -> tuple[Write, ...]:
    """Return what the tasks of a role write on its hosts."""
    found: set[Write] = set()
    scope = Scope.of_role(role)
    for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml")):
        if role == "pki" and path.stem.startswith("leaf"):
            continue  # by each role that includes it
        tasks = load(path) or []
        for task, written in paths_of(tasks, scope, str(path.relative_to(ROOT))):
            found.add(Write(role, task["name"], written, handlers_of(task, scope.variables)))
        on_host = list(tasks_in(tasks, scope))
        for task, inner in on_host:
            if is_leaf(task):
                told = frozenset(
                    handler
                    for other, _ in on_host
                    if "pki_leaf_changed" in str(other.get("when", ""))
                    for handler in as_list(other["notify"])
                )
                found |= {Write(role, task["name"], each, told) for each in leaf_paths(task, inner)}
    return tuple(sorted(found, key=lambda write: (write.path, write.task)))


@functools.cache
def table(role: str) -> frozenset[tuple[str, str]]:
    """Return the handlers and the files of a role's table, in pairs."""
    scope = Scope.of_role(role)
    loads = scope.resolve(scope.variables.get(f"__{role}_loads", {}))
    if role == "opa":  # as roles/opa/tasks/inspect.yml compares them
        loads |= {"OPA": scope.resolve(trust_as_template("{{ __opa_files }}"))}
    return frozenset((handler, path) for handler, paths in loads.items() for path in paths)


def faults(role: str, written: Iterable[Write], in_table: Iterable[tuple[str, str]]) -> list[str]:
    """Return what is wrong with the table of a role, in words."""
    pairs = set(in_table)
    explained: set[tuple[str, str]] = set()
    said = []
    for write in written:
        where = f"roles/{role}: the task '{write.task}' writes {write.path}"
        if not write.handlers and write.path not in NOT_LOADED.get(role, ()):
            said.append(
                f"{where} and notifies no handler: notify one, or add it to NOT_LOADED and say why"
            )
        for handler in sorted(write.handlers):
            explained.add((handler, write.path))
            needed = (role, handler) not in NOT_IN_A_TABLE and (
                role,
                handler,
                write.path,
            ) not in NOT_NEEDED
            if needed and (handler, write.path) not in pairs:
                said.append(
                    f"{where} and notifies '{handler}', for which __{role}_loads does not name it"
                )
    said += [
        f"roles/{role}: __{role}_loads names {path} for '{handler}': no task writes it and notifies that"
        for handler, path in sorted(pairs - explained)
        if path not in OPERATORS.get(role, ())
    ]
    return said


def new_faults(
    role: str, written: Iterable[Write], in_table: Iterable[tuple[str, str]]
) -> list[str]:
    """Return what is wrong besides what is wrong with the role as it is."""
    before = faults(role, writes(role), table(role))
    return [fault for fault in faults(role, written, in_table) if fault not in before]


ENTRIES = [(role, *entry) for role in ROLES for entry in sorted(table(role))]
LOADED = [
    write
    for role in ROLES
    for write in writes(role)
    if any((handler, write.path) in table(role) for handler in write.handlers)
]


@pytest.mark.parametrize("role", ROLES)
def test_every_file_that_a_role_writes_is_known_to_be_loaded(role: str) -> None:
    assert faults(role, writes(role), table(role)) == []


@pytest.mark.parametrize(("role", "handler", "path"), ENTRIES)
def test_an_entry_that_is_missing_is_named(role: str, handler: str, path: str) -> None:
    if path in OPERATORS.get(role, ()):
        return  # no task writes it
    (task,) = {w.task for w in writes(role) if w.path == path and handler in w.handlers}

    said = new_faults(role, writes(role), table(role) - {(handler, path)})

    where = f"roles/{role}: the task '{task}' writes {path}"
    assert said == [f"{where} and notifies '{handler}', for which __{role}_loads does not name it"]


@pytest.mark.parametrize("write", LOADED, ids=lambda write: f"{write.role}:{write.path}")
def test_a_task_that_notifies_nobody_is_named(write: Write) -> None:
    others = [other for other in writes(write.role) if other != write]
    silent = replace(write, handlers=frozenset())

    said = new_faults(write.role, [*others, silent], table(write.role))

    assert said
    assert all(write.path in fault for fault in said)


def test_a_file_that_is_in_no_list_is_named() -> None:
    write = Write("redis", "configure | Write more", "/etc/redis/more.conf", frozenset())

    (said,) = new_faults("redis", [*writes("redis"), write], table("redis"))

    assert said == (
        "roles/redis: the task 'configure | Write more' writes /etc/redis/more.conf and notifies no"
        " handler: notify one, or add it to NOT_LOADED and say why"
    )


def test_the_exceptions_are_of_files_and_handlers_that_there_are() -> None:
    all_of_them = [write for role in ROLES for write in writes(role)]
    paths = {(write.role, write.path) for write in all_of_them}
    notified = {(w.role, handler, w.path) for w in all_of_them for handler in w.handlers}

    assert [pair for pair in pairs_of(NOT_LOADED) if pair not in paths] == []
    assert [
        pair for pair in pairs_of(OPERATORS) if pair not in {(r, p) for r, _, p in ENTRIES}
    ] == []
    assert notified >= NOT_NEEDED
    assert {(role, handler) for role, handler, _ in notified} >= NOT_IN_A_TABLE


def pairs_of(paths: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    return [(role, path) for role, of_role in paths.items() for path in sorted(of_role)]
