"""Every playbook refuses an inventory that cannot work, before any host is reached."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from tests.plays import LOCAL, ROOT, ansible_playbook, role_of, run_play

GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")


INVENTORY = ROOT / "playbooks/inventory.yml"
# All but those that the others begin with (inventory.yml), that make the hosts (lab.yml), and that bring
# back what a controller needs before it can run anything else (restore_state.yml).
_WITHOUT = {INVENTORY, ROOT / "playbooks/lab.yml", ROOT / "playbooks/restore_state.yml"}
PLAYBOOKS = sorted({*ROOT.glob("playbooks/*.yml")} - _WITHOUT)


def run(inventory: Path, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the repository on hosts that nobody can reach."""
    nobody = "--ssh-common-args=-o ProxyCommand=false"
    return ansible_playbook("-i", inventory, nobody, playbook, *arguments)


def write(folder: Path, groups: dict[str, object], **variables: object) -> Path:
    """Write an inventory with variables of all its hosts."""
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"children": groups, "vars": variables}}))
    return inventory


def look_at(
    folder: Path, groups: dict[str, object], **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run the part that needs no host."""
    return run(write(folder, groups, **variables), "playbooks/inventory.yml")


def plays(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the names of the plays that began."""
    return re.findall(r"^PLAY \[(.*)\]", result.stdout, re.MULTILINE)


def one_host(**more: object) -> dict[str, object]:
    return {name: {"hosts": {"all1": {"ansible_host": "192.0.2.1", **more}}} for name in GROUPS}


def several(**more: object) -> dict[str, object]:
    """Three server nodes, and one host for the rest."""
    nodes = {f"mcp{n}": {"ansible_host": f"192.0.2.{n}"} for n in (1, 2, 3)}
    return one_host(**more) | {"mcp_servers": {"hosts": nodes}}


def test_one_host_in_all_groups_passes(tmp_path: Path) -> None:
    result = look_at(tmp_path, one_host())

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", ["example", "one-host"])
def test_the_inventories_to_copy_pass(name: str) -> None:
    result = run(ROOT / "inventories" / name, "playbooks/inventory.yml")

    assert result.returncode == 0, result.stdout


def test_an_empty_group_is_named_with_what_it_is_for(tmp_path: Path) -> None:
    groups = one_host() | {"mcp_servers": {}}

    result = look_at(tmp_path, groups)

    assert result.returncode != 0
    said = " ".join(result.stdout.split())
    assert "The group mcp_servers of the inventory has no host" in said
    assert "these hosts run the MCP server" in said


class TestServicesThatExist:
    """A group may be left out where its service is there already, and named."""

    INSTEAD: ClassVar[dict[str, dict[str, object]]] = {
        "loadbalancers": {
            "mcp_server_public_url": "https://mcp.example.com",
            "mcp_server_allowed_peers": ["gateway.lab.internal"],
            "mcp_server_trusted_proxies": ["192.0.2.9"],
        },
        "postgres": {"mcp_server_database_host": "postgres.example.com"},
        "redis": {"mcp_server_redis": "mcp-server@redis.example.com:6379/0"},
        "monitoring": {
            "mcp_server_prometheus_url": "https://prometheus.example.com",
            "mcp_server_alertmanager_url": "https://alertmanager.example.com",
            "mcp_server_telemetry_allowed_peers": ["prometheus.lab.internal"],
        },
    }
    READERS: ClassVar[dict[str, object]] = {
        "node_exporter_allowed_clients": ["prometheus.lab.internal"]
    }

    def servers(self, **variables: object) -> dict[str, object]:
        """An inventory of server nodes alone."""
        hosts = {f"mcp{n}": {"ansible_host": f"192.0.2.{n}", **LOCAL} for n in (1, 2)}
        return {"mcp_servers": {"hosts": hosts, "vars": variables}}

    def test_none_of_the_groups_is_needed_then(self, tmp_path: Path) -> None:
        named = {name: value for each in self.INSTEAD.values() for name, value in each.items()}
        named |= self.READERS
        inventory = write(tmp_path, self.servers(**named))
        told = (
            "{{ __mcp_server_settings.counters.url }} {{ __mcp_server_settings.database.host }}"
            " {{ __mcp_server_settings.listen.trusted_proxies }} <{{ mcp_server_public_ca_file }}>"
            " {{ __mcp_server_settings.telemetry.allowed_peers }}"
        )

        checked = run(inventory, "playbooks/inventory.yml")
        planned = run(inventory, "site.yml", "--list-tasks")
        accepted = run_play(
            tmp_path,
            [role_of("mcp_server", "preflight"), {"ansible.builtin.debug": {"msg": told}}],
            inventory=inventory,
            variables={"mcp_server_jwt_secret": "a" * 32},
        )

        assert checked.returncode == 0, checked.stdout
        assert planned.returncode == 0, planned.stdout + planned.stderr
        assert accepted.returncode == 0, accepted.stdout + accepted.stderr
        assert (
            "rediss://mcp-server@redis.example.com:6379/0 postgres.example.com ['192.0.2.9'] <>"
            " ['prometheus.lab.internal', 'mcp-server.mcp1.lab.internal']"
            in " ".join(accepted.stdout.split())
        )

    @pytest.mark.parametrize("group", INSTEAD)
    def test_what_is_not_named_is_asked_for(self, tmp_path: Path, group: str) -> None:
        named = {
            name: value
            for other, each in self.INSTEAD.items()
            for name, value in each.items()
            if other != group
        }

        result = look_at(tmp_path, self.servers(**named))

        said = " ".join(result.stdout.split())
        assert result.returncode != 0
        assert f"The group {group} of the inventory has no host" in said
        assert f"set for the group mcp_servers: {', '.join(self.INSTEAD[group])}" in said

    def test_who_reads_the_metrics_of_a_host_has_to_be_set_for_every_host(
        self, tmp_path: Path
    ) -> None:
        groups = several() | {"monitoring": {}}
        inventory = write(tmp_path, groups)
        (tmp_path / "group_vars").mkdir()
        variables = tmp_path / "group_vars/mcp_servers.yml"
        variables.write_text(yaml.safe_dump(self.INSTEAD["monitoring"] | self.READERS))

        refused = run(inventory, "playbooks/inventory.yml")
        variables.write_text(yaml.safe_dump(self.INSTEAD["monitoring"]))
        (tmp_path / "group_vars/all.yml").write_text(yaml.safe_dump(self.READERS))
        accepted = run(inventory, "playbooks/inventory.yml")

        said = " ".join(refused.stdout.split())
        assert refused.returncode != 0
        assert "node_exporter_allowed_clients is not set for all1. The group monitoring has" in said
        assert "Set it for all hosts, in group_vars/all" in said
        assert accepted.returncode == 0, accepted.stdout


@pytest.mark.parametrize("group", ["postgres", "redis", "backup"])
def test_a_second_host_of_which_nothing_would_be_used_is_refused(
    tmp_path: Path, group: str
) -> None:
    two = {"hosts": {"all1": {}, "db2": {"ansible_host": "192.0.2.2"}}}

    result = look_at(tmp_path, one_host() | {group: two})

    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert f"The group {group} has 2 hosts: all1, db2. Only one is supported" in said


BACKUP = {"backup": {"hosts": {"backup1": {"ansible_host": "192.0.2.9"}}}}


def test_a_host_for_backups_passes(tmp_path: Path) -> None:
    result = look_at(tmp_path, one_host() | BACKUP)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("groups", "variables", "reason"),
    [
        (
            one_host() | {"backup": {"hosts": {"all1": {}}}},
            {},
            "which is the same host: its loss would take the backups too.",
        ),
        (
            one_host() | BACKUP,
            {"backup_s3_bucket": "mcp"},
            "and backup_s3_bucket is set to mcp. Keep one of them.",
        ),
    ],
    ids=["on the host of the database", "and an S3 storage"],
)
def test_backups_that_could_not_be_restored_are_refused(
    tmp_path: Path, groups: dict[str, object], variables: dict[str, str], reason: str
) -> None:
    result = look_at(tmp_path, groups, **variables)

    assert result.returncode != 0
    assert reason in " ".join(result.stdout.split())


def test_an_unknown_variable_of_the_server_is_named_with_the_nearest_known_one(
    tmp_path: Path,
) -> None:
    result = look_at(tmp_path, one_host(), mcp_server_prot=8443)

    assert result.returncode != 0
    assert (
        "mcp_server_prot (on all1) is not a variable of any role; did you mean mcp_server_port?"
        in " ".join(result.stdout.split())
    )


def test_variables_in_group_vars_with_the_name_of_their_role_misspelt_are_all_named(
    tmp_path: Path,
) -> None:
    inventory = write(tmp_path, several())
    (tmp_path / "group_vars").mkdir()
    text = "mcp_servers_memory_max: 1G\nmcpserver_memory_max: 1G\nnginx_tls_cert: x\n"
    (tmp_path / "group_vars/mcp_servers.yml").write_text(text)

    result = run(inventory, "playbooks/inventory.yml")

    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    for name, nearest in (
        ("mcp_servers_memory_max", "mcp_server_memory_max"),
        ("mcpserver_memory_max", "mcp_server_memory_max"),
        ("nginx_tls_cert", "nginx_tls_certificate"),
    ):
        on = "on mcp1, mcp2, mcp3"
        assert f"{name} ({on}) is not a variable of any role; did you mean {nearest}?" in said


def test_strings_for_lists_and_dictionaries_are_named_without_what_they_hold(
    tmp_path: Path,
) -> None:
    hosts = one_host(nginx_server_names="mcp.example.com", opa_policy_data_overrides="a-secret")

    result = run(write(tmp_path, hosts), "playbooks/inventory.yml", "-e", "redis_acl_keys=mcp:*")

    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert "nginx_server_names (on all1) has to be a list: nginx_server_names: [A, B]" in said
    assert "opa_policy_data_overrides (on all1) has to be a dictionary" in said
    assert "redis_acl_keys (on all1) has to be a list" in said
    assert "a-secret" not in result.stdout


def test_lists_are_lists_however_they_are_given(tmp_path: Path) -> None:
    hosts = one_host(
        nginx_server_names="{{ [inventory_hostname ~ '.example.com'] }}",
        postgres_client_addresses="{{ known_on_the_host_only.addresses }}",
        prometheus_external_labels={"site": "{{ inventory_hostname }}"},
        nginx_trusted_proxies=None,
        pki_permitted_domains=["lab.internal", "example.com"],
    )
    keys = '{"redis_acl_keys": ["mcp:*"]}'

    result = run(write(tmp_path, hosts), "playbooks/inventory.yml", "-e", keys)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("playbook", [ROOT / "site.yml", *PLAYBOOKS], ids=lambda path: path.stem)
def test_every_playbook_begins_with_the_inventory(playbook: Path) -> None:
    """That it stops there, whatever the tags and the limit, is tried with some playbooks below."""
    first = playbook
    while first != INVENTORY:
        entry = yaml.safe_load(first.read_text())[0]
        # With `when` or `tags` the import could be left out.
        assert entry.keys() - {"vars"} == {"name", "ansible.builtin.import_playbook"}
        first = (first.parent / entry["ansible.builtin.import_playbook"]).resolve()


@pytest.mark.parametrize(
    "command",
    [
        ["playbooks/pki.yml"],
        ["site.yml", "--tags", "mcp_server"],
        ["site.yml", "--tags", "verify", "--check"],
        ["playbooks/nginx.yml", "--tags", "configure"],
        ["site.yml", "--limit", "mcp2"],
        ["playbooks/publish_policies.yml", "--limit", "!mcp3"],
    ],
    ids=" ".join,
)
def test_no_playbook_gets_past_an_unknown_variable(tmp_path: Path, command: list[str]) -> None:
    result = run(write(tmp_path, several()), *command, "-e", "mcp_server_memory_mxa=1G")

    assert result.returncode != 0
    assert "did you mean mcp_server_memory_max?" in result.stdout
    assert plays(result) == ["Inventory"]


def test_the_inventory_is_looked_at_once_a_run(tmp_path: Path) -> None:
    twice = tmp_path / "twice.yml"
    again = {"ansible.builtin.import_playbook": str(ROOT / "playbooks/inventory.yml")}
    twice.write_text(yaml.safe_dump([again, again]))

    result = run(write(tmp_path, one_host()), str(twice))

    assert result.returncode == 0, result.stdout
    assert plays(result) == ["Inventory", "Inventory"]
    assert result.stdout.count("TASK [inventory | Refuse variables") == 1


@pytest.mark.parametrize(
    ("limit", "left", "among"),
    [("!mcp3", "mcp3", "mcp1, mcp2"), ("mcp2,all1", "mcp1, mcp3", "mcp2")],
)
def test_nodes_that_a_limit_leaves_behind_are_named_with_what_to_do(
    tmp_path: Path, limit: str, left: str, among: str
) -> None:
    result = run(write(tmp_path, several()), "playbooks/inventory.yml", "--limit", limit)

    said = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stdout
    assert f"--limit leaves out {left}. Services and policies there stay unchanged" in said
    assert f"whatever changes on {among}." in said
    assert "run site.yml without --limit" in said


@pytest.mark.parametrize("arguments", [(), ("--limit", "all1"), ("--limit", "mcp_servers")])
def test_where_no_group_is_parted_nothing_is_left_behind(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = run(write(tmp_path, several()), "playbooks/inventory.yml", *arguments)

    assert result.returncode == 0, result.stdout
    assert "leaves out" not in result.stdout


def test_a_host_without_an_ip_address_is_named(tmp_path: Path) -> None:
    result = look_at(tmp_path, one_host(ansible_host="all1.example.com"))

    assert result.returncode != 0
    assert "Host all1 needs an IP address" in " ".join(result.stdout.split())


class TestCertificates:
    """What the authority may not sign for, or cannot sign, is told before a host is reached."""

    NETWORKS: ClassVar[list[str]] = ["198.51.100.0/24", "2001:db8::/32", "127.0.0.0/8"]
    LEAVES: ClassVar[dict[str, set[str]]] = {
        "all": {"node-exporter"},
        "loadbalancers": {"nginx"},
        "mcp_servers": {"mcp-server"},
        "postgres": {"postgres"},
        "redis": {"redis"},
        "monitoring": {"prometheus", "alertmanager"},
    }

    def given(self, *names: str) -> dict[str, object]:
        return {name: {"certificate": "cert.pem", "private_key": "key.pem"} for name in names}

    @pytest.mark.parametrize(
        "address",
        [
            {"ansible_host": "192.0.2.1"},
            {"ansible_host": "198.51.100.1", "base_address": "192.0.2.1"},
        ],
    )
    def test_an_address_outside_of_the_permitted_networks_is_refused(
        self, tmp_path: Path, address: dict[str, str]
    ) -> None:
        result = look_at(tmp_path, one_host(**address), pki_permitted_networks=self.NETWORKS)

        assert result.returncode != 0
        assert (
            "The address 192.0.2.1 of all1 is in none of the networks that the internal CA may"
            in " ".join(result.stdout.split())
        )

    @pytest.mark.parametrize(
        ("address", "more"),
        [
            ("198.51.100.1", {}),
            ("2001:db8:1::1", {}),
            ("192.0.2.1", {"pki_ca_certificate_file": "ca.pem", "pki_ca_private_key_file": "key"}),
        ],
        ids=["IPv4", "IPv6", "a company's authority has limits of its own"],
    )
    def test_an_address_that_can_be_signed_for_passes(
        self, tmp_path: Path, address: str, more: dict[str, str]
    ) -> None:
        hosts = one_host(ansible_host=address)

        result = look_at(tmp_path, hosts, pki_permitted_networks=self.NETWORKS, **more)

        assert result.returncode == 0, result.stdout

    @pytest.mark.parametrize(
        ("variables", "uncovered"),
        [
            ({"nginx_server_names": ["mcp.example.org", "a.mcp.example.com"]}, "mcp.example.org"),
            ({"nginx_server_names": ["notmcp.example.com"]}, "notmcp.example.com"),
            ({"nginx_server_names": ["192.0.2.1", "192.0.2.2"]}, "192.0.2.2"),
            ({"pki_permitted_domains": ["example.org"]}, "all1.mcp.example.com"),
        ],
    )
    def test_a_name_that_no_certificate_would_cover_is_refused(
        self, tmp_path: Path, variables: dict[str, object], uncovered: str
    ) -> None:
        result = look_at(tmp_path, one_host(), base_domain="mcp.example.com", **variables)

        assert result.returncode != 0
        assert f"The internal CA may not sign {uncovered} (of all1)" in " ".join(
            result.stdout.split()
        )

    @pytest.mark.parametrize(
        "variables",
        [
            {"nginx_server_names": ["mcp.example.com", "*.mcp.example.com", "A.MCP.example.com"]},
            {
                "nginx_server_names": ["mcp.example.org"],
                "nginx_tls_certificate": "/etc/ssl/mcp.pem",
                "nginx_tls_key": "/etc/ssl/mcp.key",
            },
            {
                "nginx_server_names": ["mcp.example.org"],
                "pki_permitted_domains": ["mcp.example.com", "mcp.example.org"],
            },
            {
                "nginx_server_names": ["mcp.example.org"],
                "pki_ca_certificate_file": "ca.pem",
                "pki_ca_private_key_file": "key.pem",
            },
        ],
    )
    def test_names_that_a_certificate_covers_pass(
        self, tmp_path: Path, variables: dict[str, object]
    ) -> None:
        result = look_at(tmp_path, one_host(), base_domain="mcp.example.com", **variables)

        assert result.returncode == 0, result.stdout

    def test_a_companys_authority_without_its_key_passes_with_all_certificates(
        self, tmp_path: Path
    ) -> None:
        leaves = self.given(*set.union(*self.LEAVES.values()))

        result = look_at(
            tmp_path, several(), pki_ca_certificate_file="ca.pem", pki_provided_leaves=leaves
        )

        assert result.returncode == 0, result.stdout

    def test_the_certificates_that_it_lacks_are_named(self, tmp_path: Path) -> None:
        groups = several() | {"mcp_servers": {"hosts": {"mcp1": {"ansible_host": "192.0.2.1"}}}}
        leaves = self.given("node-exporter", "nginx", "postgres", "redis")

        result = look_at(
            tmp_path, groups, pki_ca_certificate_file="ca.pem", pki_provided_leaves=leaves
        )

        said = " ".join(result.stdout.split())
        assert result.returncode != 0
        assert "pki_provided_leaves of all1 lacks alertmanager, prometheus. Without" in said
        assert "pki_provided_leaves of mcp1 lacks mcp-server. Without" in said

    def test_only_the_hosts_of_the_run_need_theirs(self, tmp_path: Path) -> None:
        inventory = write(
            tmp_path,
            several(),
            pki_ca_certificate_file="ca.pem",
            pki_provided_leaves=self.given("node-exporter", "mcp-server"),
        )

        limited = run(inventory, "playbooks/inventory.yml", "--limit", "mcp_servers")

        assert limited.returncode == 0, limited.stdout

    def test_the_certificates_that_are_asked_for_are_those_of_the_roles(self) -> None:
        (play,) = yaml.safe_load((ROOT / "playbooks/inventory.yml").read_text())
        roles = {
            "node_exporter": "all",
            "nginx": "loadbalancers",
            "mcp_server": "mcp_servers",
            "postgres": "postgres",
            "redis": "redis",
            "prometheus": "monitoring",
        }
        used: dict[str, set[str]] = {}
        for path in sorted(ROOT.glob("roles/*/tasks/configure.yml")):
            for task in yaml.safe_load(path.read_text()):
                name = task.get("vars", {}).get("pki_leaf_name")
                if name is not None:
                    used[roles[path.parts[-3]]] = set(task.get("loop", [name]))

        assert used == self.LEAVES
        assert {
            group: set(names) for group, names in play["vars"]["inventory_leaves"].items()
        } == self.LEAVES


class TestOtherHosts:
    """An inventory may hold hosts that are not of this installation."""

    FOREIGN = "redis_sentinel_quorum"

    def with_erp(self, **more: object) -> dict[str, object]:
        erp = {"erp1": {"ansible_host": "erp1.example.com", "nginx_vhosts": ["erp"]}}
        return several(**more) | {"erp": {"hosts": erp}}

    @pytest.mark.parametrize("playbook", ["site.yml", "playbooks/publish_policies.yml"])
    def test_no_play_is_for_them(self, tmp_path: Path, playbook: str) -> None:
        result = run(write(tmp_path, self.with_erp()), playbook, "--list-hosts")

        assert result.returncode == 0, result.stdout
        assert "mcp3" in result.stdout
        assert "erp1" not in result.stdout

    def test_nothing_is_asked_of_their_addresses_and_variables(self, tmp_path: Path) -> None:
        result = look_at(tmp_path, self.with_erp())

        assert result.returncode == 0, result.stdout

    def test_a_variable_of_another_role_is_refused_on_a_host_of_ours(self, tmp_path: Path) -> None:
        result = look_at(tmp_path, self.with_erp(**{self.FOREIGN: 2}))

        assert result.returncode != 0
        assert f"{self.FOREIGN} (on all1) is not a variable of any role" in result.stdout
        assert "base_foreign_variables does not name" in result.stdout

    @pytest.mark.parametrize("foreign", [FOREIGN, "postgresql_port"])
    def test_a_variable_of_another_role_passes_once_it_is_named(
        self, tmp_path: Path, foreign: str
    ) -> None:
        named = {foreign: 2, "base_foreign_variables": [foreign]}

        result = look_at(tmp_path, self.with_erp(**named))

        assert result.returncode == 0, result.stdout

    def test_they_are_neither_in_the_hosts_file_nor_among_the_addresses_of_the_authority(
        self, tmp_path: Path
    ) -> None:
        tasks = yaml.safe_load((ROOT / "roles/base/tasks/hosts.yml").read_text())
        hosts, networks = tmp_path / "hosts", tmp_path / "networks"
        for task in tasks:
            if "ansible.builtin.blockinfile" in task:
                task["ansible.builtin.blockinfile"] |= {"create": True}
                del (
                    task["ansible.builtin.blockinfile"]["owner"],
                    task["ansible.builtin.blockinfile"]["group"],
                )
        content = "{{ pki_permitted_networks | to_json }}"
        play = {
            "hosts": "all1",
            "gather_facts": False,
            "vars_files": [
                str(ROOT / f"roles/{role}/{part}/main.yml")
                for role in ("base", "pki")
                for part in ("defaults", "vars")
            ],
            # No host has cloud-init's template.
            "vars": {"__base_found": {"stdout_lines": []}},
            "tasks": [
                *tasks,
                {"ansible.builtin.copy": {"content": content, "dest": str(networks)}},
            ],
        }
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
        local = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "base_domain": "lab.internal",
        }
        inventory = write(tmp_path, self.with_erp(), **local)

        result = run(inventory, str(tmp_path / "play.yml"), "-e", f"__base_hosts_file={hosts}")

        assert result.returncode == 0, result.stdout
        assert hosts.read_text().count("lab.internal") == 4
        assert "erp1" not in hosts.read_text()
        ours = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32", "127.0.0.0/8"]
        assert yaml.safe_load(networks.read_text()) == ours
