"""The authority that hosts trust already, and certificates that are given instead of issued.

The role runs on this machine, with another folder in place of /etc/enterprise-mcp/tls. All that is
refused is tried in one run, each case as a host of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests import plays
from tests.plays import ROOT, ansible_playbook, run_play

ADDRESS = "192.0.2.1"


@dataclass(frozen=True)
class Certificate:
    """What a company's authority signs."""

    names: Sequence[str]
    begins: timedelta = timedelta(hours=-1)
    ends: timedelta = timedelta(days=30)


class Company:
    """A company's authority, with its files in a folder."""

    def __init__(self, folder: Path, name: str = "Company") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = folder / f"{name}.pem"
        self.private_key = folder / f"{name}.key"
        self.certificate.write_bytes(self.certify())
        write_key(self.private_key, self._key)

    def certify(self) -> bytes:
        """Return a new certificate of the authority, by the same key."""
        now = datetime.now(UTC)
        own = (
            x509.CertificateBuilder(self._name, self._name, self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=99))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return own.public_bytes(serialization.Encoding.PEM)

    def sign(self, wanted: Certificate, name: str = "leaf") -> dict[str, str]:
        """Return an entry of pki_provided_leaves."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName(each) for each in wanted.names]
        address = x509.IPAddress(ip_address(ADDRESS))
        signed = (
            x509.CertificateBuilder(self._name, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + wanted.begins)
            .not_valid_after(now + wanted.ends)
            .add_extension(x509.SubjectAlternativeName([*names, address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = {
            "certificate": str(self._folder / f"{name}-cert.pem"),
            "private_key": str(self._folder / f"{name}-key.pem"),
        }
        pem = signed.public_bytes(serialization.Encoding.PEM)
        Path(files["certificate"]).write_bytes(pem)
        write_key(Path(files["private_key"]), key)
        return files


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> None:
    lock = serialization.BestAvailableEncryption(password) if password else None
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            lock or serialization.NoEncryption(),
        )
    )


def names(host: str) -> tuple[str, str]:
    """Return the names by which nginx of this host is reached."""
    return f"nginx.{host}.lab.internal", f"{host}.lab.internal"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company(tmp_path_factory.mktemp("company"))


def run(
    folder: Path,
    inventory: Mapping[str, object],
    tasks: Sequence[Mapping[str, object]],
) -> subprocess.CompletedProcess[str]:
    """Run tasks on the hosts of an inventory, all this machine."""
    return run_play(
        folder,
        [dict(task) for task in tasks],
        inventory={"all": inventory},
        variables={"__pki_directory": f"{folder}/tls/{{{{ inventory_hostname }}}}"},
        as_root=True,
        mitogen=True,
    )


LOCAL = {
    **plays.LOCAL,
    "base_domain": "lab.internal",
    "pki_leaf_name": "nginx",
}


def role(
    folder: Path, company: Company, given: Mapping[str, object], tasks: str = "leaf"
) -> subprocess.CompletedProcess[str]:
    """Run tasks of the role for nginx on hosts; `given` by host."""
    variables = LOCAL | {
        "base_address": ADDRESS,
        # Without its private key, which a company may keep to itself.
        "pki_ca_certificate_file": str(company.certificate),
    }
    hosts = {host: {"pki_provided_leaves": {"nginx": each}} for host, each in given.items()}
    for host in given:
        (folder / "tls" / host).mkdir(parents=True, exist_ok=True)
    return run(
        folder,
        {"hosts": hosts, "vars": variables},
        [
            {"ansible.builtin.import_role": {"name": "pki", "tasks_from": tasks}},
            {
                "ansible.builtin.debug": {"msg": "load again: {{ pki_leaf_changed }}"},
                "when": "pki_leaf_changed is defined",
            },
        ],
    )


def test_a_good_pair_is_installed_and_loaded_again_when_it_changes_only(
    tmp_path: Path, company: Company
) -> None:
    given = company.sign(Certificate(names("lb1")), "lb1")
    renewed = company.sign(Certificate(names("lb1")), "lb1-renewed")

    runs = [role(tmp_path, company, {"lb1": each}) for each in (given, given, renewed)]

    said = [" ".join(run.stdout.split()) for run in runs]
    target = tmp_path / "tls/lb1/nginx"
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stdout
    assert ["load again: true" in each.lower() for each in said] == [True, False, True]
    assert "changed=0" in said[1]
    assert (target / "cert.pem").read_text() == Path(renewed["certificate"]).read_text()
    assert (target / "key.pem").read_text() == Path(renewed["private_key"]).read_text()
    assert (target / "key.pem").stat().st_mode & 0o777 == 0o640


# By host: what is said of it.
REFUSED = {
    "expired": "expired-cert.pem is valid from",
    "early": "early-cert.pem is valid from",
    "otherkey": "otherkey-cert.pem belongs to another key than",
    "nofile": "two PEM files on the controller. No such file: certificate",
    "nokey": "No such file: private_key",
    "content": "No such file: certificate and private_key",
    "nodict": "It is not a dictionary",
    "notpem": "contains no PEM certificate",
    "locked": "contains no PEM private key without a password",
    "noname": "lacks the subject alternative names DNS:nginx.noname.lab.internal; it has DNS:noname",
    "stranger": "is not signed by",
}


@pytest.fixture(scope="module")
def cases(company: Company, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What is given to each host of REFUSED."""
    folder = tmp_path_factory.mktemp("cases")
    good = {host: company.sign(Certificate(names(host)), host) for host in REFUSED}
    locked = folder / "locked.pem"
    write_key(locked, ec.generate_private_key(ec.SECP256R1()), b"a password")
    past, future = timedelta(minutes=-1), timedelta(days=1)
    return {
        "expired": company.sign(Certificate(names("expired"), ends=past), "expired"),
        "early": company.sign(Certificate(names("early"), begins=future), "early"),
        "otherkey": {**good["otherkey"], "private_key": good["locked"]["private_key"]},
        "nofile": {**good["nofile"], "certificate": "/nowhere/cert.pem"},
        "nokey": {"certificate": good["nokey"]["certificate"]},
        "content": {kind: Path(path).read_text() for kind, path in good["content"].items()},
        "nodict": good["nodict"]["certificate"],
        "notpem": {**good["notpem"], "certificate": good["notpem"]["private_key"]},
        "locked": {**good["locked"], "private_key": str(locked)},
        "noname": company.sign(Certificate(names("noname")[1:]), "noname"),
        "stranger": Company(folder, "Stranger").sign(Certificate(names("stranger")), "stranger"),
    }


@pytest.mark.parametrize(
    ("tasks", "refused"),
    [
        ("preflight", {name: REFUSED[name] for name in ("expired", "content")}),
        ("leaf", REFUSED),
    ],
)
def test_a_pair_that_would_not_work_is_refused_before_it_is_copied(
    tmp_path: Path,
    company: Company,
    cases: Mapping[str, object],
    tasks: str,
    refused: Mapping[str, str],
) -> None:
    done = role(tmp_path, company, {host: cases[host] for host in refused}, tasks)

    reasons = dict(re.findall(r"fatal: \[(\w+)\](.*?)(?=\nfatal: |\n\n)", done.stdout, re.DOTALL))
    said = {host: " ".join(reason.split()) for host, reason in reasons.items()}
    assert said.keys() == refused.keys()
    assert {host for host, reason in refused.items() if reason not in said[host]} == set(), said
    assert [*(tmp_path / "tls").rglob("*.pem")] == []
    assert "BEGIN" not in done.stdout + done.stderr


def test_the_own_authority_signs_for_ipv4_ipv6_and_the_domain_itself_and_a_second_run_changes_nothing(
    tmp_path: Path,
) -> None:
    addresses = {"lb1": "2001:db8::10", "mcp1": "2001:DB8:0:0::11", "cache1": ADDRESS}
    hosts = {name: {"ansible_host": address} for name, address in addresses.items()}
    inventory = {
        "children": {"mcp_servers": {"hosts": hosts}},
        "vars": LOCAL
        | {"pki_state_dir": str(tmp_path / "pki"), "pki_leaf_extra_sans": ["DNS:lab.internal"]},
    }
    tasks = [
        {"ansible.builtin.import_role": {"name": "pki"}},
        {"ansible.builtin.include_role": {"name": "pki", "tasks_from": "leaf"}},
    ]
    for name in hosts:
        (tmp_path / "tls" / name).mkdir(parents=True)

    first, second = (run(tmp_path, inventory, tasks) for _ in range(2))

    assert first.returncode == 0, first.stdout
    assert second.returncode == 0, second.stdout
    assert re.findall(r"changed=(\d+)", second.stdout) == ["0", "0", "0"]
    authority = x509.load_pem_x509_certificate((tmp_path / "pki/ca.pem").read_bytes())
    limits = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    networks = {
        str(each.value) for each in limits.permitted_subtrees or () if "/" in str(each.value)
    }
    assert networks == {
        f"{ADDRESS}/32",
        "2001:db8::10/128",
        "2001:db8::11/128",
        "127.0.0.0/8",
    }
    leaves = [str(tmp_path / "tls" / name / "nginx/cert.pem") for name in hosts]
    verified = subprocess.run(
        [
            *("openssl", "verify", "-CAfile", str(tmp_path / "pki/ca.pem")),
            *("-verify_hostname", "lab.internal", *leaves),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


class Hosts:
    """Hosts that are this machine, what they trust, and what their controller has."""

    def __init__(self, folder: Path, **trusted: bytes | None) -> None:
        self._folder = folder
        self.state = folder / ".state"
        for host, certificate in trusted.items():
            (folder / "tls" / host).mkdir(parents=True)
            if certificate is not None:
                (folder / "tls" / host / "ca.pem").write_bytes(certificate)
        groups = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")
        hosts = {host: plays.LOCAL | {"base_address": ADDRESS} for host in trusted}
        # Only one host may be in the groups of the stores: the last one.
        last = dict([list(hosts.items())[-1]])
        members = {group: last if group in {"postgres", "redis"} else hosts for group in groups}
        inventory = {
            "all": {"children": {group: {"hosts": each} for group, each in members.items()}}
        }
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def give_state(self, authority: Company) -> None:
        """Give the controller an authority and a secret."""
        for name in ("pki", "secrets"):
            (self.state / name).mkdir(parents=True)
        shutil.copy(authority.private_key, self.state / "pki/ca.key")
        shutil.copy(authority.certificate, self.state / "pki/ca.pem")
        (self.state / "secrets/redis_password").write_text("from the first run")

    def files(self) -> list[str]:
        """Return what is in the controller's state."""
        return sorted(str(each.relative_to(self.state)) for each in self.state.rglob("*"))

    def run(self, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the repository; base, which would change this machine, is never chosen."""
        tls = f"{self._folder}/tls/{{{{ inventory_hostname }}}}"
        return ansible_playbook(
            *("-i", self._folder / "hosts.yml", "-e", json.dumps({"__pki_directory": tls})),
            *(playbook, "--skip-tags", "base", *arguments),
        )


@pytest.mark.parametrize(
    "command",
    [
        ("site.yml", "--tags", "secrets"),
        ("site.yml", "--tags", "secrets", "--check", "--limit", "old1"),
        ("playbooks/pki.yml",),
        ("playbooks/postgres.yml", "--tags", "preflight"),
    ],
    ids=" ".join,
)
def test_a_controller_without_the_state_of_an_installation_stops_before_it_makes_another(
    tmp_path: Path, company: Company, command: tuple[str, ...]
) -> None:
    hosts = Hosts(tmp_path, new1=None, old1=company.certificate.read_bytes())

    result = hosts.run(*command)

    said = " ".join(result.stdout.split())
    key = f"there is no {hosts.state}/pki/ca.key"
    assert result.returncode != 0, result.stdout
    assert "old1 belongs to an existing installation: it trusts the CA Company" in said
    assert f"This run would replace it: {key}" in said
    assert "run site.yml with -e pki_replace_authority=true" in said
    assert not hosts.state.exists()
    assert "PLAY [Certificate authority]" not in result.stdout


def test_the_state_of_another_installation_is_refused(tmp_path: Path, company: Company) -> None:
    hosts = Hosts(tmp_path, old1=company.certificate.read_bytes())
    hosts.give_state(Company(tmp_path, "Other"))
    before = hosts.files()

    result = hosts.run("playbooks/secrets.yml")

    said = " ".join(result.stdout.split())
    assert result.returncode != 0, result.stdout
    assert f"would replace it with the CA of {hosts.state}/pki/ca.key, whose key is" in said
    assert hosts.files() == before


def test_a_companys_authority_does_not_hide_that_the_secrets_are_missing(
    tmp_path: Path, company: Company
) -> None:
    hosts = Hosts(tmp_path, old1=company.certificate.read_bytes())
    given = ("-e", f"pki_ca_certificate_file={company.certificate}")
    key = ("-e", f"pki_ca_private_key_file={company.private_key}")

    result = hosts.run("playbooks/secrets.yml", *given, *key)

    said = " ".join(result.stdout.split())
    assert result.returncode != 0, result.stdout
    assert f"This controller has none of its secrets: {hosts.state}/secrets is empty." in said
    assert not hosts.state.exists()


def test_fresh_hosts_and_those_of_the_authority_pass_whatever_its_certificate(
    tmp_path: Path, company: Company
) -> None:
    hosts = Hosts(tmp_path, new1=None, old1=company.certify())
    hosts.give_state(company)

    result = hosts.run("playbooks/secrets.yml")

    assert result.returncode == 0, result.stdout
    assert (hosts.state / "secrets/jwt_secret").exists()


def test_an_authority_is_replaced_on_purpose(tmp_path: Path, company: Company) -> None:
    hosts = Hosts(tmp_path, old1=company.certificate.read_bytes())

    result = hosts.run("playbooks/secrets.yml", "-e", "pki_replace_authority=true")

    assert result.returncode == 0, result.stdout
    assert (hosts.state / "secrets/jwt_secret").exists()


def test_every_playbook_that_changes_hosts_looks_at_them_first() -> None:
    texts = {path.stem: path.read_text() for path in ROOT.glob("playbooks/*.yml")}

    without = {name for name, text in texts.items() if "import_tasks: tasks/facts.yml" not in text}

    # base.yml and firewall.yml give no secret to a host, lockdown.yml and publish_policies.yml make
    # none, and verify.yml only asks. The playbooks of nodes begin with nginx.yml, which looks, and
    # restore.yml is site.yml. restore_state.yml brings back what the others look for.
    none_given = {"base", "firewall", "inventory", "lab", "lockdown", "publish_policies", "verify"}
    of_nodes = {"drain", "remove_node", "undrain"}
    assert without == {"pki", *none_given, *of_nodes, "restore", "restore_state"}
    assert "import_playbook: ../site.yml" in texts["restore"]
    assert all("import_playbook: nginx.yml" in texts[name] for name in of_nodes)
    assert "import_playbook: secrets.yml" in texts["pki"]
