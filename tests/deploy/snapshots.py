"""Images of lab hosts as they are, to which a host goes back that a test has changed.

A host comes back as another container of the same command (name, address, network, rights) from an
image of its file system: with its SSH keys, certificates, packages and data, and freshly booted. That
takes less time than a playbook that repairs it, and it undoes what a playbook does not know of.

An image holds the host's keys and passwords. It is named after the container, so that roles/lab removes
it with the container; it must not be pushed anywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.deploy.installation import Host, at_once

__all__ = ["Disposable", "Snapshots"]

Disposable = Callable[..., None]

# Seconds for a boot on a busy machine; it takes three on one that is not.
_BOOT_S = 120
_FREEZE_ATTEMPTS = 5


def podman(*arguments: str) -> str:
    """Run podman as root, as the role lab does, and return its standard output."""
    root = () if os.getuid() == 0 else ("sudo", "-n")
    done = subprocess.run(
        [*root, "podman", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Snapshot:
    """An image of a host, and the command that makes a container of it."""

    container: str
    image: str
    command: Sequence[str]


@dataclass
class Snapshots:
    """The images that this session has made, by host."""

    _kept: dict[str, Snapshot] = field(default_factory=dict)

    def keep(self, hosts: Sequence[Host]) -> None:
        """Make an image of each of these hosts that has none yet."""
        new = [host for host in hosts if host.name not in self._kept]
        self._kept |= zip((host.name for host in new), at_once(_commit, new), strict=True)

    def restore(self, hosts: Sequence[Host]) -> None:
        """Put hosts in place of these that are as their images, and wait until they have booted."""
        at_once(lambda host: _restore(host, self._kept[host.name]), hosts)


def _container_of(host: Host) -> dict[str, Any]:
    """Return what podman says of the container that has the name and the address of a host."""
    running = podman("ps", "--quiet", f"--filter=name=-{host.name}$").split()
    for container in json.loads(podman("inspect", *running)) if running else ():
        networks = container["NetworkSettings"]["Networks"].values()
        addresses = {network["IPAddress"] for network in networks}
        if container["Config"]["Hostname"] == host.name and host.address in addresses:
            found: dict[str, Any] = container
            return found
    raise AssertionError(f"no container on this machine is {host.name} at {host.address}")


def _commit(host: Host) -> Snapshot:
    container = _container_of(host)
    made_of = container["ImageName"]
    # The last part stays: by it alone containers.podman.podman_container tells whether a container has
    # to be made anew, so the next run of the role lab leaves the host as it is.
    image = f"localhost/{container['Name']}/{made_of.rpartition('/')[2]}"
    if image != made_of:
        # Of a session that ended early: without its name it would stay for ever.
        for left in podman("images", "--quiet", f"--filter=reference={image}").split():
            podman("rmi", left)
    for left_attempts in reversed(range(_FREEZE_ATTEMPTS)):
        try:
            podman("commit", "--quiet", "--pause", container["Name"], image)
        except AssertionError as error:
            # The kernel freezes no process that waits for the disk.
            if not left_attempts or "unable to freeze" not in str(error):
                raise
            time.sleep(5)
        else:
            break
    _, *command = container["Config"]["CreateCommand"]
    command = [image if word == made_of else word for word in command]
    # Neighbours keep the MAC address of a host for up to a minute; with another one, they would not
    # reach the new container in that time.
    (network,) = container["NetworkSettings"]["Networks"].values()
    if (mac := f"--mac-address={network['MacAddress']}") not in command:
        command.insert(command.index(image), mac)
    return Snapshot(container["Name"], image, command)


def _restore(host: Host, snapshot: Snapshot) -> None:
    podman("rm", "--force", "--time=0", snapshot.container)
    podman(*snapshot.command)
    until = time.monotonic() + _BOOT_S
    # 255 is ssh's own status: nobody listens yet.
    while (answer := host.attempt("systemctl is-system-running --wait")).returncode == 255:
        assert time.monotonic() < until, f"{host.name}: {answer.stderr.decode()}"
        time.sleep(0.2)
    assert answer.stdout == b"running\n", host.run("systemctl list-units --failed")
