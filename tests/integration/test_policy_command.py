"""What scripts/policy makes of a whole folder of policies; each of these runs all of its tests.

What it says of single mistakes is in tests/unit/test_policy_data.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.policy_command import ROOT, run_policy, write_example


class TestFolder:
    """The folder of policies has any name; beside it may stand another one named `policies`."""

    @pytest.fixture(name="acme")
    def _acme(self, tmp_path: Path) -> Path:
        return Path(shutil.copytree(ROOT / "policies", tmp_path / "own" / "acme-policies"))

    @pytest.fixture(params=["alone", "beside good policies"])
    def broken(self, request: pytest.FixtureRequest, acme: Path) -> Path:
        """Policies named otherwise, in which everything is wrong."""
        if request.param != "alone":
            shutil.copytree(acme, acme.parent / "policies")
        with (acme / "mcp" / "tenants" / "tenants.rego").open("a") as rules:
            rules.write("ok  if input.subject.properties.tenent\n")
        (acme / "config" / "network" / "data.yaml").write_text("allow: [10.0.0.0/33]\n")
        (acme / "mcp" / "tenants" / "data.yaml").write_text("{}\n")
        return acme

    @pytest.mark.parametrize(
        ("check", "said"),
        [
            ("check_places", "acme-policies/mcp/tenants/data.yaml: data stands in acme-policies/"),
            ("check_types", " acme-policies/mcp/tenants/tenants.rego:"),
            ("check_format", "opa fmt --write acme-policies`:\nacme-policies/mcp/tenants/ten"),
            ("lint", "\nacme-policies/config/network/data.yaml: network.allow.0: "),
            ("test", "acme-policies/mcp/tenants/tenants.rego:"),
        ],
    )
    def test_what_is_checked_is_the_folder_that_is_given(
        self, policy: ModuleType, broken: Path, check: str, said: str
    ) -> None:
        with (
            pytest.raises(policy.Refused, match=re.escape(said)),
            policy.tree_with(broken, {}, policy.opa_binary(None)) as tree,
        ):
            getattr(tree, check)()

    def test_overrides_are_merged_into_the_folder_that_is_given(
        self, policy: ModuleType, acme: Path
    ) -> None:
        overrides = {"network": {"allow": ["10.0.0.0/33"]}}
        with (
            pytest.raises(
                policy.Refused, match=r"acme-policies/config/network/data\.yaml with opa_policy"
            ),
            policy.tree_with(acme, overrides, policy.opa_binary(None)) as tree,
        ):
            tree.lint()

    def test_a_folder_that_is_not_there_is_named(self, policy: ModuleType, tmp_path: Path) -> None:
        with (
            pytest.raises(policy.Refused, match=r"There is no folder .*/absent\."),
            policy.tree_with(tmp_path / "absent", {}, policy.opa_binary(None)),
        ):
            pass

    def test_its_policies_are_the_ones_that_are_packed(self, acme: Path, tmp_path: Path) -> None:
        shutil.copytree(acme, acme.parent / "policies")
        limits = acme / "config" / "limits" / "data.yaml"
        limits.write_text(limits.read_text().replace("limit: 1000", "limit: 4321"))
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        (tmp_path / "key.pem").write_bytes(key)

        done = run_policy(
            tmp_path,
            *("--policies", "own/acme-policies", "build", "--out", "made"),
            *("--signing-key", "key.pem", "--key-id", "k"),
        )

        assert done.returncode == 0, done.stderr
        with tarfile.open(tmp_path / "made" / "bundle.tar.gz") as bundle:
            data = bundle.extractfile("/data.json")
            assert data is not None
            assert json.load(data)["config"]["limits"]["global"]["limit"] == 4321


def test_the_package_of_the_documentation_fits(
    policy: ModuleType, tree: Any, tmp_path: Path
) -> None:
    page = write_example(tree.folder)
    (changes,) = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    subprocess.run(["git", "apply"], cwd=tmp_path, input=changes, text=True, check=True)
    said: list[str] = []

    policy.full_check(tree, said.append)

    before = sum(
        text.read_text().count("\ntest_") for text in (ROOT / "policies").rglob("*_test.rego")
    )
    assert said == [f"{before + 3} tests of the policies passed; coverage 100%"]
