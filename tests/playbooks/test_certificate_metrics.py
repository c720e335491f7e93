"""Whose end the script of role node_exporter watches: the role's certificates, and that of clients."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.playbooks.test_pki import Certificate, Company
from tests.plays import LOCAL, ROOT, run_play

_SCRIPT = "usr/local/lib/enterprise-mcp/certificate-metrics"
_ENDS = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A certificate that Nginx shows to clients, in a folder with a space in its name."""
    folder = tmp_path / "of clients"
    folder.mkdir()
    wanted = Certificate(["mcp.example.com"], ends=_ENDS - datetime.now(UTC))
    return Path(Company(folder).sign(wanted)["certificate"])


def write(folder: Path, given: Path) -> None:
    """Write the script of a load balancer and of another host, both with certificates of the role."""
    tls = folder / "tls"
    (tls / "nginx").mkdir(parents=True)
    company = Company(tls, "ca")
    leaf = Path(company.sign(Certificate(["lb1"]), "leaf")["certificate"])
    leaf.rename(tls / "nginx/cert.pem")
    template = ROOT / f"roles/node_exporter/templates/{_SCRIPT}.j2"
    written = {"src": str(template), "dest": str(folder / "{{ inventory_hostname }}.sh")}
    done = run_play(
        folder,
        [
            {"ansible.builtin.include_vars": str(ROOT / "roles/node_exporter/vars/main.yml")},
            {"ansible.builtin.template": written},
        ],
        inventory={
            "all": {
                "children": {
                    "loadbalancers": {"hosts": {"lb1": LOCAL}},
                    "mcp_servers": {"hosts": {"mcp1": LOCAL}},
                },
                "vars": {"nginx_tls_certificate": str(given)},
            }
        },
        variables={
            "__node_exporter_tls_root": str(tls),
            "__node_exporter_textfile_dir": str(folder),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr


def watched(folder: Path, host: str) -> tuple[int, dict[str, int]]:
    """Run the script and return its status, and the end of each certificate."""
    done = subprocess.run(["sh", folder / f"{host}.sh"], capture_output=True, check=False)
    text = (folder / "enterprise_mcp_certificates.prom").read_text()
    found = re.findall(r'^\w+_not_after_seconds\{path="([^"]+)"\} (\d+)$', text, re.MULTILINE)
    return done.returncode, {path: int(end) for path, end in found}


def test_the_certificate_that_clients_see_is_watched_where_nginx_is(
    tmp_path: Path, given: Path
) -> None:
    write(tmp_path, given)

    (status, ends), (other_status, others) = (watched(tmp_path, name) for name in ("lb1", "mcp1"))

    own = {f"{tmp_path}/tls/ca.pem", f"{tmp_path}/tls/nginx/cert.pem"}
    assert (status, other_status) == (0, 0)
    assert ends.keys() == own | {str(given)}
    assert ends[str(given)] == int(_ENDS.timestamp())
    assert others.keys() == own


def test_one_that_cannot_be_read_fails_the_unit_and_the_others_are_watched(
    tmp_path: Path, given: Path
) -> None:
    write(tmp_path, given)
    given.unlink()

    status, ends = watched(tmp_path, "lb1")

    assert status == 1
    assert ends.keys() == {f"{tmp_path}/tls/ca.pem", f"{tmp_path}/tls/nginx/cert.pem"}
