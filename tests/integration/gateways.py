"""Nginx as roles/nginx configures it, as a process of the tests."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.integration.servers import Authority, Server, program
from tests.plays import ansible_playbook

__all__ = ["Nginx", "write_configuration"]


class Nginx(Server):
    """nginx with the configuration of a directory.

    Attributes:
        port: where it listens, on 127.0.0.1, with TLS.
    """

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(directory)
        self.port = port

    def command(self) -> list[str]:
        configuration = self.directory / "nginx.conf"
        return [program("nginx", "nginx"), "-c", str(configuration), "-g", "daemon off;"]

    def ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10):
            return True


def write_configuration(
    directory: Path, authority: Authority, *, nodes: Sequence[int], port: int, **different: object
) -> Path:
    """Let Ansible write the configuration files of the role into a new directory.

    Args:
        nodes: the ports of the server nodes on 127.0.0.1.
        port: the port of nginx on 127.0.0.1.
        different: variables of the role that differ.
    """
    own = authority.identity("nginx", dns=("nginx.lb1.lab.internal", "localhost"))
    hosts = {
        f"node{number}": {"ansible_host": "127.0.0.1", "mcp_server_port": node}
        for number, node in enumerate(nodes, 1)
    }
    variables = {
        "nginx_listen_addresses": ["127.0.0.1"],
        "nginx_port": port,
        "base_domain": "lab.internal",
        "__nginx_dir": str(directory),
        "__nginx_log_dir": str(directory),
        "__nginx_pid_file": str(directory / "nginx.pid"),
        "__nginx_user": getpass.getuser(),
        "__nginx_ca_file": str(authority.ca),
        "__nginx_leaf_certificate": str(own.cert),
        "__nginx_leaf_key": str(own.key),
        **different,
    }
    directory.mkdir()
    inventory = directory / "inventory.json"
    inventory.write_text(json.dumps({"all": {"children": {"mcp_servers": {"hosts": hosts}}}}))
    extra = directory / "variables.json"
    extra.write_text(json.dumps(variables))
    ansible_playbook(
        "-i", inventory, "-e", f"@{extra}", "tests/integration/nginx_render.yml"
    ).check_returncode()
    return directory
