"""Fixtures: the installation that is tested.

By Molecule (`molecule test -s default`, `-s cluster`), or by hand against the lab of `make demo`:
    .venv/bin/pytest tests/deploy
    .venv/bin/pytest tests/deploy --ansible-inventory=inventories/lab -k sockets
Tests that stop services or change settings put everything back; hosts that would need a playbook for
that are `disposable`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host as Shell
from testinfra.utils.ansible_runner import AnsibleRunner

from tests.deploy.installation import JOURNAL, Host, Installation, describe
from tests.deploy.snapshots import Disposable, Snapshots
from tests.plays import ROOT, ansible_environment

_INSTALLATION = pytest.StashKey[Installation]()
_DIRECTORY = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Let testinfra speak to the hosts as Ansible does: same inventory, same keys, root by sudo."""
    config.addinivalue_line("markers", "cluster: needs more than one server node")
    config.addinivalue_line("markers", "compares_names: needs exporters newer than Debian 12's")
    config.option.connection = "ansible"
    config.option.sudo = True
    inventory = Path(config.option.ansible_inventory or ROOT / "inventories" / "lab").resolve()
    config.option.ansible_inventory = str(inventory)
    found = ansible_environment()
    os.environ |= {name: found[name] for name in ("PATH", "ANSIBLE_CONFIG")}

    directory = Path(tempfile.mkdtemp(prefix="emcp-"))
    config.stash[_DIRECTORY] = directory
    config.stash[_INSTALLATION] = installation = describe(inventory, directory)
    # testinfra reads inventories without resolving templates: it gets the resolved values.
    runner = AnsibleRunner.get_runner(str(inventory))
    runner.inventory = {
        "_meta": {
            "hostvars": {
                name: {
                    "ansible_host": facts["login_address"],
                    "ansible_port": facts["port"],
                    "ansible_user": facts["user"],
                    "ansible_ssh_private_key_file": facts["key"],
                    "ansible_ssh_common_args": facts["ssh_args"],
                    "ansible_ssh_extra_args": " ".join(installation.control_options()),
                }
                for name, facts in installation.facts.items()
            }
        },
        **{group: {"hosts": hosts} for group, hosts in installation.groups.items()},
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_DIRECTORY], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs several nodes where there is one, and what Debian 12 cannot do there."""
    installation = config.stash[_INSTALLATION]
    impossible = []
    if len(installation.groups["mcp_servers"]) == 1:
        impossible.append("cluster")
    if "12" in {host.debian_release() for host in installation.hosts.values()}:
        impossible.append("compares_names")
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in impossible)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def installation(pytestconfig: pytest.Config) -> Installation:
    return pytestconfig.stash[_INSTALLATION]


@pytest.fixture
def calm(installation: Installation) -> Iterator[Installation]:
    """The installation with empty counters and every node ready, before and after the test."""
    installation.wait_until_ready()
    installation.forget_counts()
    yield installation
    installation.wait_until_ready()


@pytest.fixture(scope="session")
def snapshots() -> Snapshots:
    return Snapshots()


@pytest.fixture
def controller(installation: Installation) -> Iterator[None]:
    """Put the controller's copy of the published policies back after the test."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "policies")
        shutil.copytree(installation.published, copy)
        yield
        shutil.rmtree(installation.published)
        shutil.copytree(copy, installation.published)


@pytest.fixture
def disposable(
    installation: Installation, snapshots: Snapshots, controller: None
) -> Iterator[Disposable]:
    """A function for the hosts that a test is about to change: they come back as they were after it."""
    hosts: list[Host] = []

    def dispose(*changed: Host) -> None:
        snapshots.keep(changed)
        hosts.extend(changed)

    yield dispose
    try:
        # Their journals and the states of their units go with them.
        for host in hosts:
            assert host.failed_units() == [], host.name
            assert host.lines_with(installation.secret_lines().values(), JOURNAL) == 0, host.name
    finally:
        snapshots.restore(hosts)
        installation.wait_until_ready(deadline_s=120)


@pytest.fixture
def me(host: Shell, installation: Installation) -> Host:
    """The host under test: its name, its addresses, and commands with standard input."""
    return installation.hosts[host.backend.host]
