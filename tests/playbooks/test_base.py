"""The role base: names of the hosts, updates and time, with files of the test in place of the host's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from tests.plays import LOCAL, ROOT, role_of, run_play

INVENTORY = {
    "all": {"children": {"redis": {"hosts": {"cache1": {"base_address": "192.0.2.7", **LOCAL}}}}}
}
NAMES = "192.0.2.7 cache1.lab.internal cache1"
# As Debian's cloud-init has it, in short.
TEMPLATE = """\
## template:jinja
{#
This file (/etc/cloud/templates/hosts.debian.tmpl) is only utilized
if enabled in cloud-config.
-#}
# Your system has configured 'manage_etc_hosts' as True.
127.0.1.1 {{fqdn}} {{hostname}}
127.0.0.1 localhost
"""


def task_of(file: str, name: str) -> dict[str, Any]:
    """Return a task of the role."""
    tasks = yaml.safe_load((ROOT / "roles/base/tasks" / file).read_text())
    (task,) = (each for each in tasks if each["name"] == name)
    return dict(task)


def look(*parts: str) -> list[dict[str, Any]]:
    """Return the tasks that find what the host has, with these variables of the role."""
    load = [
        {"ansible.builtin.include_vars": str(ROOT / f"roles/base/{part}/main.yml")}
        for part in parts
    ]
    name = "install | Find other time services, directories and templates"
    return [*load, task_of("install.yml", name)]


class TestNames:
    """Servers find PostgreSQL, Redis and Prometheus by the names in /etc/hosts."""

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        self.hosts, self.template = tmp_path / "hosts", tmp_path / "hosts.debian.tmpl"
        self.hosts.write_text("127.0.0.1 localhost\n")

    def write(self, folder: Path, **variables: object) -> subprocess.CompletedProcess[str]:
        """Let the role name the hosts."""
        done = run_play(
            folder,
            [*look("vars"), role_of("base", "hosts")],
            inventory=INVENTORY,
            variables={
                "__base_hosts_file": str(self.hosts),
                "__base_hosts_template": str(self.template),
                **variables,
            },
            as_root=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def boot(self) -> None:
        """Do what cloud-init does at each boot with manage_etc_hosts: true (cc_update_etc_hosts)."""
        body = self.template.read_text().split("\n", 1)[1]
        names = {"fqdn": "cache1.example.com", "hostname": "cache1"}
        self.hosts.write_text(
            jinja2.Template(body, trim_blocks=True, keep_trailing_newline=True).render(names)
        )

    def test_they_are_there_after_a_boot_of_a_host_with_cloud_init(self, tmp_path: Path) -> None:
        self.template.write_text(TEMPLATE)
        self.write(tmp_path)

        self.boot()

        assert NAMES in self.hosts.read_text()
        assert "127.0.1.1 cache1.example.com cache1" in self.hosts.read_text()
        assert "changed=0" in self.write(tmp_path).stdout

    def test_without_cloud_init_no_template_is_made(self, tmp_path: Path) -> None:
        self.write(tmp_path)

        assert NAMES in self.hosts.read_text()
        assert not self.template.exists()

    def test_they_are_taken_away_where_the_companys_dns_takes_over(self, tmp_path: Path) -> None:
        self.template.write_text(TEMPLATE)
        self.write(tmp_path)

        self.write(tmp_path, base_manage_hosts_file=False)

        assert self.hosts.read_text() == "127.0.0.1 localhost\n"
        assert self.template.read_text() == TEMPLATE


@pytest.mark.parametrize(
    "tasks",
    [
        path
        for path in ROOT.glob("roles/*/tasks/*.yml")
        if "\n  ansible.builtin.apt:\n" in path.read_text()
    ],
    ids=str,
)
def test_packages_are_waited_for_until_a_host_has_done_with_its_first_boot(tasks: Path) -> None:
    importing = [
        task
        for path in tasks.parent.glob("*.yml")
        for task in yaml.safe_load(path.read_text())
        if task.get("ansible.builtin.import_tasks") == tasks.name
    ]

    default = [{"ansible.builtin.apt": {"lock_timeout": 300}}]
    # Of a file that other roles include, the tasks have it themselves.
    own = {
        task["ansible.builtin.apt"].get("lock_timeout")
        for task in yaml.safe_load(tasks.read_text())
        if "ansible.builtin.apt" in task
    }
    assert own == {300} or [task.get("module_defaults") for task in importing] == default


@pytest.mark.parametrize(("wanted", "written"), [(True, "1"), (False, "0"), ("false", "0")])
def test_security_updates_are_turned_on_and_off(
    tmp_path: Path, wanted: object, written: str
) -> None:
    task = task_of("configure.yml", "configure | Set up security updates")
    own = {"src": str(ROOT / "roles/base/templates" / task["ansible.builtin.template"]["src"])}
    task["ansible.builtin.template"] |= own | {"dest": str(tmp_path / "20auto-upgrades")}

    defaults = {"ansible.builtin.include_vars": str(ROOT / "roles/base/defaults/main.yml")}
    done = run_play(
        tmp_path,
        [defaults, task],
        inventory=INVENTORY,
        variables={"base_unattended_upgrades": wanted},
        as_root=True,
    )

    assert done.returncode == 0, done.stdout
    read = subprocess.run(
        ["apt-config", "-c", tmp_path / "20auto-upgrades", "dump"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    settings = dict(re.findall(r'^(\S+) "(.*)";$', read, re.MULTILINE))
    assert settings["APT::Periodic::Update-Package-Lists"] == written
    assert settings["APT::Periodic::Unattended-Upgrade"] == written
    # As unattended-upgrade reads them: each matches from the beginning of the name.
    excluded = re.findall(r'^Unattended-Upgrade::Package-Blacklist:: "(.*)";$', read, re.MULTILINE)
    packages = ["postgresql-15", "postgresql-17", "redis-server", "redis-tools"]
    others = ["nginx", "postgresql-client-17", "postgresql-common", "python3-redis", "openssl"]
    assert [
        name for name in packages + others if any(re.match(pattern, name) for pattern in excluded)
    ] == packages


@pytest.mark.parametrize(
    ("found", "wanted", "kept"),
    [("", True, True), ("chronyd", True, False), ("ntpd", True, False), ("", False, False)],
)
def test_timesyncd_is_installed_where_no_other_time_service_is(
    tmp_path: Path, found: str, wanted: bool, kept: bool
) -> None:
    services = [str(tmp_path / name) for name in ("chronyd", "ntpd")]
    if found:
        (tmp_path / found).touch()
    told = "installs={{ 'systemd-timesyncd' in __base_packages }} keeps={{ __base_keeps_time }}"

    done = run_play(
        tmp_path,
        [
            *look("defaults", "vars"),
            {"ansible.builtin.debug": {"msg": told}},
        ],
        inventory=INVENTORY,
        variables={"__base_other_time_services": services, "base_manage_time": wanted},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"installs={kept} keeps={kept}" in done.stdout
