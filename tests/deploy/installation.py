"""An installation as the tests see it: its hosts over SSH, its doors over HTTPS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shlex
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from mcp_server.identity import mint_token
from tests.plays import ROOT, ansible_environment

__all__ = [
    "FIREWALL_UNIT",
    "JOURNAL",
    "PROBE",
    "Host",
    "Installation",
    "Playbook",
    "at_once",
    "describe",
    "eventually",
]

JOURNAL = "journalctl --no-pager --output=export --all"
PROBE = "/opt/mcp_server/current/bin/mcpctl probe --config=/etc/mcp_server/config.yaml"
FIREWALL_UNIT = "enterprise-mcp-firewall.service"
SECRETS = (
    "jwt_secret",
    "postgres_owner_password",
    "postgres_server_password",
    "postgres_auditor_password",
    "redis_password",
    "bundle_signing_key",
)
_numbers = itertools.count(1)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Playbook:
    """What a run of ansible-playbook said."""

    rc: int
    output: str

    @property
    def plays(self) -> list[str]:
        """The names of the plays that began."""
        return re.findall(r"^PLAY \[(.*)\]", self.output, re.MULTILINE)

    def require(self) -> Playbook:
        """Return itself, or fail with the whole output."""
        assert self.rc == 0, self.output
        return self


@dataclass(frozen=True)
class Host:
    """A host of the inventory, with a root shell on it."""

    name: str
    fqdn: str
    address: str
    ssh: tuple[str, ...]

    def run(self, command: str, *, stdin: bytes = b"", check: bool = True) -> str:
        """Run a shell command as root and return its standard output.

        Args:
            stdin: what must not be seen in a list of processes.
        """
        done = self.attempt(command, stdin=stdin)
        if check:
            assert done.returncode == 0, f"{self.name}: {command}: {done.stderr.decode()}"
        return done.stdout.decode()

    def attempt(self, command: str, *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a shell command as root, whatever comes of it."""
        remote = f"sudo -n sh -c {shlex.quote(command)}"
        return subprocess.run(
            [*self.ssh, remote], input=stdin, capture_output=True, timeout=120, check=False
        )

    def systemctl(self, *arguments: str) -> None:
        """Run systemctl, which waits for what it starts and stops."""
        self.run(shlex.join(["systemctl", *arguments]))

    def failed_units(self) -> list[str]:
        """Return the units that systemd calls failed."""
        listed = json.loads(self.run("systemctl list-units --failed --output=json"))
        return [unit["unit"] for unit in listed]

    def lines_with(self, texts: Iterable[str], command: str) -> int:
        """Return how many lines of a command's output hold one of some texts, which it does not see."""
        counted = self.run(
            f"{{ {command} | grep -cFf /dev/fd/3; }} 3<&0 || true", stdin="\n".join(texts).encode()
        )
        return int(counted)

    def main_pid(self, unit: str) -> int:
        """Return the main process of a unit, 0 when it does not run."""
        return int(self.run(f"systemctl show -P MainPID {shlex.quote(unit)}"))

    def debian_release(self) -> str:
        """Return the number of its system's release, such as `13`."""
        return self.run('. /etc/os-release; printf %s "$VERSION_ID"')

    @contextlib.contextmanager
    def stopped(self, unit: str) -> Iterator[None]:
        """Stop a unit for the time of a test."""
        self.systemctl("stop", unit)
        try:
            yield
        finally:
            self.systemctl("start", unit)


class Installation:
    """Hosts by name and group, clients of the public address, playbooks.

    Args:
        inventory: what ansible-playbook gets with -i.
        description: what describe.yml wrote of it.
    """

    def __init__(self, inventory: Path, description: Mapping[str, Any], directory: Path) -> None:
        self.inventory = inventory
        self.groups: dict[str, list[str]] = dict(description["groups"])
        self.facts: dict[str, dict[str, Any]] = dict(description["hosts"])
        # The table of roles/firewall for each host: service, host, port, and who connects (from).
        self.ports: list[dict[str, Any]] = list(description["ports"])
        self._directory = directory
        self.hosts = {name: self._host(name) for name in self.facts}
        self.address = {name: host.address for name, host in self.hosts.items()}
        self.url = f"https://{self.address[self.groups['loadbalancers'][0]]}"
        self.mcp_url = f"{self.url}/mcp"

    def __repr__(self) -> str:
        return f"Installation({self.inventory})"

    def _host(self, name: str) -> Host:
        facts = self.facts[name]
        options = [*shlex.split(facts["ssh_args"]), *self.control_options(), "-o", "BatchMode=yes"]
        login = ["-i", facts["key"], "-p", str(facts["port"]), "-l", facts["user"]]
        ssh = ("ssh", *options, *login, facts["login_address"])
        return Host(name, facts["fqdn"], facts["address"], ssh)

    def control_options(self) -> list[str]:
        """Return the options by which all commands to a host share one connection."""
        return [
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s"),
            *("-o", f"ControlPath={self._directory}/%C"),
        ]

    def members(self, group: str) -> list[Host]:
        """Return the hosts of a group."""
        return [self.hosts[name] for name in self.groups[group]]

    @property
    def _any(self) -> dict[str, Any]:
        return next(iter(self.facts.values()))

    @property
    def ca_file(self) -> Path:
        """The authority's certificate, on the controller."""
        return Path(self._any["pki"]) / "ca.pem"

    @property
    def published(self) -> Path:
        """The folder with the bundles that were published, on the controller."""
        return Path(self._any["policies"])

    @property
    def secrets(self) -> Path:
        """The folder with the generated secrets, on the controller."""
        return Path(self._any["secrets"])

    def secret(self, name: str) -> str:
        """Return a generated secret."""
        return (self.secrets / name).read_text().strip()

    def secret_lines(self) -> dict[str, str]:
        """Return each generated secret as one line to look for."""
        return {name: max(self.secret(name).splitlines(), key=len) for name in SECRETS}

    @contextlib.contextmanager
    def without_firewalls(self) -> Iterator[None]:
        """Let every host reach every port: services must refuse by themselves too."""
        hosts = [*self.hosts.values()]
        with contextlib.ExitStack() as stack:
            stack.callback(at_once, lambda host: host.systemctl("start", FIREWALL_UNIT), hosts)
            at_once(lambda host: host.systemctl("stop", FIREWALL_UNIT), hosts)
            yield

    # --- calling ---------------------------------------------------------------------------------

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def http(
        self, token: str | None = None, *, base_url: str = "", **headers: str
    ) -> httpx2.AsyncClient:
        """Return a client of the public origin that trusts our authority only."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx2.AsyncClient(
            base_url=base_url or self.url, headers=headers, verify=self._trust, timeout=90
        )

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        url = f"{self.url}/.well-known/oauth-protected-resource/mcp"
        answer: dict[str, Any] = httpx2.get(url, verify=self._trust).raise_for_status().json()
        return answer

    @property
    def issuer(self) -> str:
        return self.audience.removesuffix("/mcp")

    @property
    def audience(self) -> str:
        return str(self._metadata["resource"])

    def token(self, user: str = "", roles: Sequence[str] = ("mcp:viewer",), **claims: Any) -> str:
        """Return a token; without a user, of one that nobody used yet (limits are per user)."""
        return mint_token(
            secret=claims.pop("secret", None) or self.secret("jwt_secret"),
            issuer=claims.pop("issuer", None) or self.issuer,
            audience=claims.pop("audience", None) or self.audience,
            user=user or f"deploy-{os.getpid()}-{time.time_ns()}-{next(_numbers)}",
            roles=roles,
            tenant=claims.pop("tenant", "default"),
            **claims,
        )

    # --- operating -------------------------------------------------------------------------------

    def forget_counts(self) -> None:
        """Empty the counters of all limits."""
        for host in self.members("redis"):
            host.run("/usr/local/sbin/redis-admin FLUSHDB")

    def node_status(self, host: Host) -> dict[str, Any]:
        """Return what the node says of itself (mcpctl probe)."""
        status: dict[str, Any] = json.loads(host.run(PROBE, check=False))
        return status

    def wait_until_ready(self, deadline_s: float = 180) -> None:
        """Wait until every node says that it can do its work."""
        nodes = self.members("mcp_servers")
        at_once(lambda node: node.run(f"{PROBE} --wait {deadline_s:g}"), nodes)

    def wait_until_not_ready(self, deadline_s: float = 180) -> None:
        """Wait until every node has noticed that it cannot do its work."""
        until = time.monotonic() + deadline_s
        for host in self.members("mcp_servers"):
            while (status := self.node_status(host)).get("ready") is not False:
                assert time.monotonic() < until, f"{host.name} stays ready: {status}"
                time.sleep(0.3)

    def play(
        self, playbook: str, *arguments: str, inventory: Path | None = None, timeout_s: float = 600
    ) -> Playbook:
        """Run a playbook of the repository against this installation."""
        done = subprocess.run(
            self.play_command(playbook, *arguments, inventory=inventory),
            cwd=ROOT,
            env=ansible_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        return Playbook(done.returncode, done.stdout.decode())

    def play_command(
        self, playbook: str, *arguments: str, inventory: Path | None = None
    ) -> list[str]:
        """Return the command of `play`, for those who wait in another way."""
        ansible = str(Path(sys.executable).parent / "ansible-playbook")
        return [ansible, "-i", str(inventory or self.inventory), *arguments, playbook]


def describe(inventory: Path, directory: Path) -> Installation:
    """Read an inventory.

    Args:
        directory: a private folder with a short path (it holds control sockets).
    """
    with tempfile.NamedTemporaryFile(dir=directory, suffix=".json") as output:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory)),
                *("-e", f"output={output.name}", str(Path(__file__).with_name("describe.yml"))),
            ],
            cwd=ROOT,
            env=ansible_environment(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        description = json.loads(Path(output.name).read_text())
    return Installation(inventory, description, directory)


def at_once(do: Callable[[Host], _Answer], hosts: Sequence[Host]) -> list[_Answer]:
    """Do the same for several hosts at the same time, and return what came of it in their order."""
    with ThreadPoolExecutor(max_workers=max(len(hosts), 1)) as pool:
        return [*pool.map(do, hosts)]


async def eventually(
    ask: Callable[[], Awaitable[_Answer]],
    wanted: Callable[[_Answer], bool],
    deadline_s: float = 180,
) -> _Answer:
    """Ask until the answer is as wanted, and return it.

    Machines differ in speed, so tests wait for what they need and not for a time. After the deadline
    the last answer is returned as it is: the test's assertion says what is wrong with it.
    """
    until = time.monotonic() + deadline_s
    while not wanted(answer := await ask()) and time.monotonic() < until:  # noqa: ASYNC110 (hosts send no events)
        await asyncio.sleep(0.3)
    return answer


def basic(text: str) -> str:
    """Return `text` in Base64, for what must pass through a shell untouched."""
    return base64.b64encode(text.encode()).decode()
