"""playbooks/lockdown.yml when the policies of the repository cannot be published.

That a lockdown refuses callers is for tests/deploy/test_lockdown.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.playbooks.test_preflight import several
from tests.plays import LOCAL, ansible_playbook
from tests.policies import POLICIES


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder of the controller in which a lockdown is noted."""
    folder = tmp_path / ".state/policies"
    folder.mkdir(parents=True)
    return folder


def switch(folder: Path, lockdown: str) -> str:
    """Run the playbook with policies that do not compile; return what it says as one line."""
    broken = folder / "policies"
    shutil.copytree(POLICIES, broken)
    (broken / "mcp/tenants/tenants.rego").write_text("package mcp.tenants\n\nok if unknown\n")
    key = ec.generate_private_key(ec.SECP256R1())
    variables = {
        **LOCAL,
        "ansible_become": False,
        "opa_policies_dir": str(broken),
        "opa_bundle_signing_key": key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode(),
        "opa_bundle_verification_key": "unused",
    }
    inventory = {"all": {"children": several(), "vars": variables}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))

    result = ansible_playbook(
        *("-i", folder / "hosts.yml", "playbooks/lockdown.yml", "-e", f"lockdown={lockdown}")
    )

    assert result.returncode != 0, result.stdout
    return " ".join(result.stdout.split())


def test_a_lockdown_that_cannot_be_published_is_told_and_not_noted(
    tmp_path: Path, state: Path
) -> None:
    said = switch(tmp_path, "on")

    assert "NOT LOCKED DOWN: the policies of this repository cannot be published." in said
    assert "The policies do not compile: " in said
    assert "systemctl stop mcp-server" in said
    assert not (state / "lockdown").exists()


def test_a_lockdown_that_cannot_be_lifted_stays_noted(tmp_path: Path, state: Path) -> None:
    (state / "lockdown").touch()

    said = switch(tmp_path, "off")

    assert (
        "The lockdown was not lifted: the policies of this repository cannot be published." in said
    )
    assert "NOT LOCKED DOWN" not in said
    assert (state / "lockdown").exists()
