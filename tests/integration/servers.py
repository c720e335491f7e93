"""Real servers for the integration tests: on loopback, on free ports, in a directory of their own.

Each can be stopped, killed, paused and started again, on the same port with the same data, which is
what fault tests need. A missing program is an error that names the Debian package, never a skip.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tarfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mcp_server.infrastructure.database import Database, DatabaseUnavailable
from mcp_server.settings import CountersSettings, DatabaseSettings, PolicySettings, Secret

__all__ = [
    "Alertmanager",
    "Authority",
    "Identity",
    "Opa",
    "PostgresServer",
    "Prometheus",
    "RedisServer",
    "Server",
    "ServerFailed",
    "answers",
    "build_bundle",
    "hasty_database",
    "opa_with",
]

_ROOT = Path(__file__).resolve().parents[2]
# Bounds of what a busy machine needs, not of what is tested.
_START_DEADLINE_S = 180.0
_STOP_DEADLINE_S = 90.0
# The deadline of a call of the server's where none is tested.
_CALL_S = 20.0
_OPA_VERSION = "1.22.2"
# The signal at the death of the parent is one at the death of the thread that started the child:
# all are started by one thread that lives as long as the tests.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


async def answers(database: Database) -> bool:
    """Tell whether a statement over the pool is answered now."""
    try:
        async with database.connection() as connection:
            await connection.execute("SELECT 1")
    except DatabaseUnavailable:
        return False
    return True


class ServerFailed(Exception):
    """A server did not start or stop; the message holds the end of its log."""


# --- certificates -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority that lives as long as the tests.

    Args:
        parent: the authority that signs this one, which is then an intermediate; None: a root.
    """

    def __init__(self, directory: Path, *, parent: Authority | None = None) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = "Integration tests" if parent is None else "Integration tests, intermediate"
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = self if parent is None else parent
        self._cert = (
            issuer._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .sign(issuer._key, hashes.SHA256())
        )
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self._cert.public_bytes(serialization.Encoding.PEM))

    def identity(
        self,
        name: str,
        *,
        dns: Sequence[str] = ("localhost",),
        lasting: timedelta = timedelta(days=1),
    ) -> Identity:
        """Issue a certificate for 127.0.0.1 and the DNS names, for servers and clients.

        Args:
            lasting: until its end; a negative time makes one that has expired already.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternatives = [x509.DNSName(each) for each in dns]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        cert = (
            self._builder(subject, key.public_key(), lasting)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [*alternatives, x509.IPAddress(ip_address("127.0.0.1"))]
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        files = Identity(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        files.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        files.key.touch(mode=0o600)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def revocation_list(self, *revoked: x509.Certificate) -> bytes:
        """Return a list of revoked certificates (CRL, PEM)."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - timedelta(minutes=5))
            .next_update(now + timedelta(days=1))
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder()
            entry = entry.serial_number(certificate.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        lasting: timedelta = timedelta(days=1),
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + lasting)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


# --- processes ----------------------------------------------------------------------------------


class Server(ABC):
    """One server process with its directory and its log.

    Args:
        directory: made if absent; kept between stop and start.
    """

    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line; the process must stay in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it serves; may raise OSError for no."""

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            ServerFailed: it ended or was not ready in time.
        """
        self._process = _SPAWNER.submit(self._spawn).result()
        self.wait_until_answers()

    def wait_until_answers(self) -> None:
        """Return when it serves.

        Raises:
            ServerFailed: it does not run, or does not serve in time.
        """
        deadline = time.monotonic() + _START_DEADLINE_S
        while not self.answers():
            if self._process is None or self._process.poll() is not None:
                raise ServerFailed(f"{self} ended:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"{self} was not ready in time:\n{self._log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in an orderly way; harmless when it does not run."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it and its children at once, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def send(self, what: signal.Signals) -> None:
        """Send a signal to the process.

        Raises:
            ServerFailed: it does not run.
        """
        if self._process is None:
            raise ServerFailed(f"{self} does not run")
        self._process.send_signal(what)

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        self._signal_all(signal.SIGSTOP)
        assert self._process is not None
        # A thread that waits for a processor takes the signal when it gets one.
        until = time.monotonic() + _STOP_DEADLINE_S
        while not all(map(_is_frozen, _family(self._process.pid))):
            if time.monotonic() > until:
                raise ServerFailed(f"{self} does not freeze")
            time.sleep(0.01)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._signal_all(signal.SIGCONT)

    def answers(self) -> bool:
        """Whether it serves now."""
        try:
            return self.ready()
        except (OSError, subprocess.TimeoutExpired):
            return False

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for the length of the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Freeze it for the length of the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def __str__(self) -> str:
        return f"{type(self).__name__} in {self.directory}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                # Nothing is left running when the tests are killed.
                ["setpriv", f"--pdeathsig={self.stop_signal.name[3:]}", *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if how is signal.SIGKILL:
                _kill_family(process.pid)
            else:
                process.send_signal(how)
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerFailed(f"{self} did not stop:\n{self._log_tail()}") from None

    def _signal_all(self, what: signal.Signals) -> None:
        if self._process is None:
            raise ServerFailed(f"{self} does not run")
        for pid in _family(self._process.pid):
            _send(pid, what)

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


def _is_frozen(pid: int) -> bool:
    """Whether no thread of a process runs."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            # The name before the state may hold anything, parentheses too.
            if stat.read_text().rpartition(")")[2].split()[0] not in "TZX":
                return False
    return True


def _send(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended meanwhile
        os.kill(pid, what)


def _kill_family(pid: int) -> None:
    """Kill a process and its descendants, and return when all are dead."""
    _send(pid, signal.SIGSTOP)  # it starts no more children
    family = _family(pid)
    for member in family:
        _send(member, signal.SIGKILL)
    deadline = time.monotonic() + _STOP_DEADLINE_S
    while any(_alive(member) for member in family) and time.monotonic() < deadline:
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _family(pid: int) -> list[int]:
    """Return the process and its descendants, ancestors first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family


_PORTS_OF_A_WORKER = 2_500


def _ports() -> Iterator[int]:
    """Ports that the kernel gives to nobody by itself: a server that starts again finds its own free.

    Each worker of pytest-xdist has others, and takes them round and round.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw7").removeprefix("gw"))
    first = 10_000 + worker % 8 * _PORTS_OF_A_WORKER
    # Another run beside this one began elsewhere.
    begin = os.getpid() * 61 % _PORTS_OF_A_WORKER
    numbers = itertools.count(begin)
    return (first + number % _PORTS_OF_A_WORKER for number in numbers)


_PORTS = _ports()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing uses now, and that is not given again soon."""
    for port in itertools.islice(_PORTS, _PORTS_OF_A_WORKER):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerFailed("there is no free port for a server")


def program(name: str, package: str, *places: Path) -> str:
    """Return the path of a program.

    Raises:
        ServerFailed: it is not installed; the message says which Debian package brings it.
    """
    for place in places:
        if os.access(place / name, os.X_OK):
            return str(place / name)
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ServerFailed(f"{name} is missing: run make bootstrap, or apt install {package}")
    return found


def _http_ok(url: str, authority: Authority | None = None) -> bool:
    context = None
    if authority is not None:
        context = ssl.create_default_context(cafile=authority.ca)
    with urllib.request.urlopen(url, timeout=2, context=context) as answer:
        return bool(answer.status == 200)


# --- PostgreSQL ---------------------------------------------------------------------------------

# For tests in which PostgreSQL does not answer: that is settled soon, however long others may wait.
hasty_database = pytest.mark.parametrize(
    "database_settings", [{"timeout_s": 4.0}], ids=["hasty"], indirect=True
)


class PostgresServer(Server):
    """PostgreSQL with TLS, SCRAM and the roles that roles/postgres makes.

    Attributes:
        port: on 127.0.0.1.
        ca: CA of its certificate.
        owner: role name of the owner of databases and schemas.
        auditor: name of the role that reads the audit log.
    """

    stop_signal = signal.SIGINT  # "fast": disconnects clients instead of waiting for them
    owner = "mcp_owner"
    server_role = "mcp_server"
    auditor = "mcp_auditor"

    def __init__(self, directory: Path, authority: Authority) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.ca = authority.ca
        self.superuser_password = "superuser-secret"
        self.owner_password = "owner-secret"
        self.server_password = "server-secret"
        self.auditor_password = "auditor-secret"
        self._password_file = directory / "server_password"
        self._password_file.write_text(self.server_password + "\n")
        self._data = directory / "data"
        self._dropped: list[str] = []
        # PostgreSQL refuses to run as root; Debian's package brings the account.
        self._account = "postgres" if os.getuid() == 0 else None
        if not self._data.exists():
            self._initialize(authority)

    def settings(
        self, database: str, *, pool_max: int = 5, timeout_s: float = _CALL_S
    ) -> DatabaseSettings:
        """Return settings for the server's role in a database, TLS verified in full."""
        return DatabaseSettings(
            host="127.0.0.1",
            port=self.port,
            name=database,
            user=self.server_role,
            password=Secret(file=self._password_file),
            ca=self.ca,
            pool_max=pool_max,
            timeout_s=timeout_s,
        )

    def command(self) -> list[str]:
        return [*self._as_account(), self._binary("postgres"), "-D", str(self._data)]

    def ready(self) -> bool:
        return (
            subprocess.run(
                [self._binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                check=False,
            ).returncode
            == 0
        )

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        """Run SQL as the superuser and return what it prints, unaligned."""
        done = subprocess.run(
            [
                *(self._binary("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"),
                *("-p", str(self.port), "-U", "postgres", "-d", database, "-f", "-"),
            ],
            input=sql,
            env={**os.environ, "PGPASSWORD": self.superuser_password},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailed(f"psql: {done.stderr}")
        return done.stdout.strip()

    def create_roles(self) -> None:
        """Make the roles as the Ansible role does; to be called once."""
        self.psql(
            f"CREATE ROLE {self.owner} LOGIN PASSWORD '{self.owner_password}';"
            f"CREATE ROLE {self.server_role} LOGIN PASSWORD '{self.server_password}';"
            f"CREATE ROLE {self.auditor} LOGIN PASSWORD '{self.auditor_password}';"
            f"ALTER ROLE {self.auditor} SET default_transaction_read_only = on;"
        )

    def create_database(self, name: str, *, template: str = "template0") -> None:
        """Make a database of the owner, that only it and the server may connect to."""
        dropped, self._dropped = self._dropped, []
        self.psql(
            "".join(f"DROP DATABASE IF EXISTS {old} WITH (FORCE);" for old in dropped)
            # To copy the files takes less than half of what writing each page to the log takes.
            + f"CREATE DATABASE {name} OWNER {self.owner} TEMPLATE {template} STRATEGY file_copy;"
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;"
            f"GRANT CONNECT ON DATABASE {name} TO {self.server_role}, {self.auditor};"
        )

    def drop_database(self, name: str) -> None:
        """Remove a database, connections or not, when the next one is made."""
        self._dropped.append(name)

    def _initialize(self, authority: Authority) -> None:
        identity = authority.identity("postgres")
        password = self.directory / "superuser_password"
        password.write_text(self.superuser_password)
        for file in (self.directory, identity.cert, identity.key, password):
            if self._account:
                shutil.chown(file, self._account, self._account)
        subprocess.run(
            [
                *(*self._as_account(), self._binary("initdb"), "-D", str(self._data)),
                *("-U", "postgres", f"--pwfile={password}", "--auth=scram-sha-256"),
                *("--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
            ],
            check=True,
            capture_output=True,
            cwd=self.directory,
        )
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(
                # The second address is not in the certificate.
                f"listen_addresses = '127.0.0.1,127.0.0.2'\n"
                f"port = {self.port}\n"
                f"unix_socket_directories = '{self.directory}'\n"
                f"max_connections = 60\n"
                f"shared_buffers = 32MB\n"
                f"ssl = on\n"
                f"ssl_cert_file = '{identity.cert}'\n"
                f"ssl_key_file = '{identity.key}'\n"
                # What is lost when the machine crashes, which is not what is tested.
                f"fsync = off\n"
                f"full_page_writes = off\n"
            )
        (self._data / "pg_hba.conf").write_text(
            "hostssl all mcp_owner,mcp_server,mcp_auditor 127.0.0.1/32 scram-sha-256\n"
            "host    all postgres                         127.0.0.1/32 scram-sha-256\n"
        )

    def _as_account(self) -> list[str]:
        if self._account is None:
            return []
        account = pwd.getpwnam(self._account)
        return [
            *("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"),
            *("--clear-groups", "--pdeathsig=INT"),
        ]

    def _binary(self, name: str) -> str:
        versions = sorted(
            Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name)
        )
        return program(name, "postgresql", *versions)


# --- Redis --------------------------------------------------------------------------------------


class RedisServer(Server):
    """Redis with the keys and commands that roles/redis allows the server.

    Attributes:
        port: on 127.0.0.1; TLS when an authority was given.
        url: with the user, without the password.
    """

    user = "mcp-server"

    def __init__(self, directory: Path, authority: Authority | None = None) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.password = "redis-secret"
        self._authority = authority
        self._password_file = directory / "password"
        self._password_file.write_text(self.password + "\n")
        scheme = "redis" if authority is None else "rediss"
        self.url = f"{scheme}://{self.user}@127.0.0.1:{self.port}/0"
        self._configure()

    def settings(self, *, timeout_s: float = _CALL_S) -> CountersSettings:
        """Return settings for the server's user."""
        return CountersSettings(
            url=self.url,
            password=Secret(file=self._password_file),
            ca=None if self._authority is None else self._authority.ca,
            timeout_s=timeout_s,
        )

    def command(self) -> list[str]:
        return [program("redis-server", "redis-server"), str(self.directory / "redis.conf")]

    def ready(self) -> bool:
        return self.cli("ping", timeout_s=2) == "PONG"

    def cli(self, *words: str, timeout_s: float = _CALL_S) -> str:
        """Run a command as the administrator and return what it prints."""
        tls: list[str] = []
        if self._authority is not None:
            tls = ["--tls", "--cacert", str(self._authority.ca)]
        return subprocess.run(
            [
                *(program("redis-cli", "redis-tools"), "-h", "127.0.0.1", "-p", str(self.port)),
                *("--user", "admin", "--no-auth-warning", *tls, *words),
            ],
            env={**os.environ, "REDISCLI_AUTH": self.password},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        ).stdout.strip()

    def _configure(self) -> None:
        role = yaml.safe_load((_ROOT / "roles/redis/defaults/main.yml").read_text())
        keys = " ".join(f"~{key}" for key in role["redis_acl_keys"])
        commands = " ".join(f"+{command}" for command in role["redis_acl_commands"])
        digest = hashlib.sha256(self.password.encode()).hexdigest()
        acl = self.directory / "users.acl"
        acl.write_text(
            "user default off nopass resetkeys resetchannels -@all\n"
            f"user admin on #{digest} ~* &* +@all\n"
            f"user {self.user} on #{digest} {keys} resetchannels -@all {commands}\n"
        )
        lines = [
            "bind 127.0.0.1",
            "daemonize no",
            f"aclfile {acl}",
            f"dir {self.directory}",
            "appendonly yes",
            'save ""',
        ]
        if self._authority is None:
            lines.append(f"port {self.port}")
        else:
            identity = self._authority.identity("redis")
            lines += [
                "port 0",
                f"tls-port {self.port}",
                f"tls-cert-file {identity.cert}",
                f"tls-key-file {identity.key}",
                f"tls-ca-cert-file {self._authority.ca}",
                "tls-auth-clients no",
            ]
        (self.directory / "redis.conf").write_text("\n".join(lines) + "\n")


# --- OPA ----------------------------------------------------------------------------------------


def opa_program() -> str:
    """Return the OPA binary: the cache of `make bootstrap`, else the one on the PATH."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "enterprise-mcp/bin"
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    built = cache / f"opa-{_OPA_VERSION}-{machine}"
    if os.access(built, os.X_OK):
        return str(built)
    found = shutil.which("opa")
    if found is None:
        raise ServerFailed(f"{built} is missing: run make bootstrap, or scripts/build_opa")
    return found


def build_bundle(policies: Path, destination: Path, *, revision: str = "test") -> Path:
    """Build an unsigned bundle of `mcp/` and `config/` below `policies`, as the product does.

    Args:
        policies: a tree laid out as the repository's policies/.
        destination: the .tar.gz to write.
        revision: what the decisions will name.
    """
    stage = destination.with_suffix(".stage")
    shutil.rmtree(stage, ignore_errors=True)
    for root in ("mcp", "config"):
        shutil.copytree(policies / root, stage / root, ignore=shutil.ignore_patterns("*_test.rego"))
    (stage / ".manifest").write_text(
        json.dumps({"revision": revision, "rego_version": 1, "roots": ["mcp", "config"]})
    )
    check = [opa_program(), "check", "--bundle", str(stage)]
    if (policies / "capabilities.json").exists():
        check += ["--capabilities", str(policies / "capabilities.json")]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"opa check: {done.stdout}{done.stderr}")
    temporary = destination.with_suffix(".new")
    with tarfile.open(temporary, "w:gz") as archive:
        archive.add(stage, arcname="/")
    temporary.rename(destination)
    return destination


class Opa(Server):
    """The sidecar: a bundle, a Unix socket, and system.authz in front of it.

    Args:
        directory: must have a short path, for the socket.
        bundle: a .tar.gz.
        authz: the Rego file of `system.authz`.
        verification_key: PEM file of the public key of a signed bundle; None: not verified.

    Attributes:
        socket: path of the Unix socket.
        diagnostics: URL of /health and /metrics.
    """

    def __init__(
        self,
        directory: Path,
        bundle: Path,
        *,
        authz: Path = _ROOT / "policies/system/authz/authz.rego",
        verification_key: Path | None = None,
        verification_key_id: str = "bundle",
        signing_algorithm: str = "ES256",
    ) -> None:
        super().__init__(directory)
        self.socket = directory / "opa.sock"
        self.bundle = bundle
        self._authz = authz
        self._port = free_port()
        self.diagnostics = f"http://127.0.0.1:{self._port}"
        self._config = directory / "opa.json"
        source: dict[str, object] = {"resource": f"file://{bundle}"}
        configuration: dict[str, object] = {"bundles": {"mcp": source}}
        if verification_key is not None:
            source["signing"] = {"keyid": verification_key_id}
            configuration["keys"] = {
                verification_key_id: {
                    "algorithm": signing_algorithm,
                    "key": verification_key.read_text(),
                }
            }
        self._config.write_text(json.dumps(configuration))

    def settings(self, *, timeout_s: float = _CALL_S) -> PolicySettings:
        """Return settings for the sidecar."""
        return PolicySettings(socket=self.socket, timeout_s=timeout_s)

    def command(self) -> list[str]:
        self.socket.unlink(missing_ok=True)
        role = yaml.safe_load((_ROOT / "roles/opa/defaults/main.yml").read_text())
        return [
            *("env", f"GOGC={role['opa_gc_percent']}"),
            f"GOMEMLIMIT={role['opa_memory_soft_limit_mib']}MiB",
            *(opa_program(), "run", "--server", "--config-file", str(self._config)),
            *("--addr", f"unix://{self.socket}", "--unix-socket-perm", "660"),
            *("--diagnostic-addr", f"127.0.0.1:{self._port}", "--authorization=basic"),
            "--optimize-store-for-read-speed",
            *("--skip-version-check", "--log-level=error", str(self._authz)),
        ]

    def ready(self) -> bool:
        return _http_ok(f"{self.diagnostics}/health?bundles&plugins")

    def publish(self, bundle: Path) -> None:
        """Put another bundle in the place of the one in use, and restart to take it."""
        bundle.replace(self.bundle)
        self.restart()


# --- Prometheus and Alertmanager ----------------------------------------------------------------


@contextmanager
def opa_with(workspace: Path, name: str, data: Mapping[str, Any]) -> Iterator[Opa]:
    """Run OPA with the shipped policies and other policy data while the block runs.

    Args:
        name: of the directory in the workspace.
        data: by the name of a directory in policies/config: the keys that differ from the shipped ones.
    """
    tree = workspace / f"{name}-policies"
    shutil.copytree(_ROOT / "policies", tree)
    for area, changes in data.items():
        file = tree / "config" / area / "data.yaml"
        # JSON is YAML, without aliases, which OPA does not read.
        file.write_text(json.dumps({**yaml.safe_load(file.read_text()), **changes}))
    server = Opa(workspace / f"opa-{name}", build_bundle(tree, workspace / f"{name}.tar.gz"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Alertmanager(Server):
    """Alertmanager without a cluster port and without receivers.

    Args:
        inhibit_rules: as in its configuration file.
    """

    def __init__(
        self, directory: Path, *, inhibit_rules: Sequence[Mapping[str, object]] = ()
    ) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = directory / "alertmanager.yml"
        self._config.write_text(
            yaml.safe_dump(
                {
                    "route": {"receiver": "nobody"},
                    "receivers": [{"name": "nobody"}],
                    "inhibit_rules": list(inhibit_rules),
                }
            )
        )

    def command(self) -> list[str]:
        return [
            program("prometheus-alertmanager", "prometheus-alertmanager"),
            f"--config.file={self._config}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def ready(self) -> bool:
        return _http_ok(f"{self.url}/-/ready")

    def silence(self, alertname: str) -> None:
        """Silence the alerts of a name for an hour."""
        now = datetime.now(UTC)
        matcher = {"name": "alertname", "value": alertname, "isRegex": False, "isEqual": True}
        silence = {
            "matchers": [matcher],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=1)).isoformat(),
            "createdBy": "tests",
            "comment": "tests",
        }
        request = urllib.request.Request(
            f"{self.url}/api/v2/silences",
            json.dumps(silence).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=_CALL_S).close()

    def post(self, **labels: str) -> None:
        """Raise an alert as another sender than Prometheus does."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts",
            json.dumps([{"labels": labels}]).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=_CALL_S).close()

    def alerts(self) -> list[str]:
        """Return the names of the alerts, silenced ones included."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=_CALL_S) as answer:
            return [alert["labels"]["alertname"] for alert in json.load(answer)]


class Prometheus(Server):
    """Prometheus that scrapes itself every second, with one alert of each severity firing.

    The alerts `AlwaysCritical`, `AlwaysWarning` and `AlwaysInfo` carry `severity`, `instance` and
    a summary, and go to the Alertmanager where one is given.

    Args:
        rules: other alerts in the place of these.
        relabel: `alert_relabel_configs`.
        jobs: further scrape configurations.
        remote: where else series are read from, as `remote_read` has it.
        flags: of the command line, such as `--query.max-samples=1000`.
    """

    def __init__(
        self,
        directory: Path,
        alertmanager: Alertmanager | None = None,
        *,
        rules: Sequence[Mapping[str, object]] | None = None,
        relabel: Sequence[Mapping[str, object]] = (),
        jobs: Sequence[Mapping[str, object]] = (),
        remote: Sequence[Mapping[str, object]] = (),
        flags: Sequence[str] = (),
    ) -> None:
        super().__init__(directory)
        self._flags = flags
        self._alerts = rules or [_alert(each) for each in ("critical", "warning", "info")]
        self.data = directory / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        rule_file = directory / "rules.yml"
        rule_file.write_text(
            yaml.safe_dump(
                {
                    "groups": [
                        {
                            "name": "always",
                            "interval": "1s",
                            "rules": [dict(each) for each in self._alerts],
                        }
                    ]
                }
            )
        )
        configuration: dict[str, object] = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rule_file)],
            "scrape_configs": [
                {
                    "job_name": "prometheus",
                    "static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}],
                },
                *map(dict, jobs),
            ],
            "remote_read": list(map(dict, remote)),
        }
        if alertmanager is not None:
            target = {"static_configs": [{"targets": [f"127.0.0.1:{alertmanager.port}"]}]}
            configuration["alerting"] = {
                "alertmanagers": [target],
                "alert_relabel_configs": list(map(dict, relabel)),
            }
        self._config = directory / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(configuration))

    def command(self) -> list[str]:
        return [
            program("prometheus", "prometheus"),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            # An Alertmanager that was restarted has forgotten them.
            "--rules.alert.resend-delay=1s",
            "--log.level=warn",
            *self._flags,
        ]

    def backfill(self, samples: str) -> None:
        """Put samples of the past (text in the OpenMetrics format) in place before the start."""
        source = self.directory / "past.om"
        source.write_text(samples)
        blocks = ["tsdb", "create-blocks-from", "openmetrics", str(source), str(self.data)]
        subprocess.run(
            [program("promtool", "prometheus"), *blocks], check=True, stdout=subprocess.DEVNULL
        )

    def wait_until_alerts_arrive(self, alertmanager: Alertmanager, count: int = 3) -> None:
        """Return when the Alertmanager has so many alerts.

        Raises:
            ServerFailed: they did not come in time.
        """
        deadline = time.monotonic() + _START_DEADLINE_S
        while len(alertmanager.alerts()) < count:
            if time.monotonic() > deadline:
                raise ServerFailed(f"no alerts in {alertmanager}:\n{self._log_tail()}")
            time.sleep(0.1)

    def wait_until_scraped(self, targets: int) -> None:
        """Return when so many targets have been scraped.

        Raises:
            ServerFailed: they were not in time.
        """
        deadline = time.monotonic() + _START_DEADLINE_S
        while self._scraped() < targets:
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self} did not scrape {targets} targets:\n{self._log_tail()}")
            time.sleep(0.1)

    def ready(self) -> bool:
        """Whether the series `up` is there."""
        return _http_ok(f"{self.url}/-/ready") and self._scraped() > 0

    def _scraped(self) -> int:
        with urllib.request.urlopen(f"{self.url}/api/v1/query?query=up", timeout=_CALL_S) as answer:
            return len(json.load(answer)["data"]["result"])


def _alert(severity: str) -> dict[str, object]:
    return {
        "alert": f"Always{severity.capitalize()}",
        "expr": 'label_replace(vector(1), "instance", "test:1", "", "")',
        "labels": {"severity": severity},
        "annotations": {"summary": f"This alert of severity {severity} always fires"},
    }
