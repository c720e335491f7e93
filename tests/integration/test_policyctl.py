"""policyctl on whole folders of policies; most of these tests run all tests of the policies.

Single mistakes are in tests/unit/test_policyctl.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyctl.checks import (
    check_all,
    check_data,
    check_format,
    check_layout,
    check_types,
    run_tests,
)
from policyctl.opa import PolicyError, find_opa
from policyctl.tree import PolicyTree, tree_with_overrides
from tests.policies import POLICIES, run_policyctl, write_example


class TestFolder:
    """The folder of policies may have any name, and another one beside it may be named `policies`."""

    @pytest.fixture(name="acme")
    def _acme(self, tmp_path: Path) -> Path:
        return Path(shutil.copytree(POLICIES, tmp_path / "own" / "acme-policies"))

    @pytest.fixture(params=["alone", "beside good policies"])
    def broken(self, request: pytest.FixtureRequest, acme: Path) -> Path:
        """A folder with another name, in which everything is wrong."""
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
            (check_layout, "acme-policies/mcp/tenants/data.yaml: data belongs in acme-policies/"),
            (check_types, " acme-policies/mcp/tenants/tenants.rego:"),
            (check_format, "opa fmt --write acme-policies`:\nacme-policies/mcp/tenants/ten"),
            (check_data, "\nacme-policies/config/network/data.yaml: network.allow.0: "),
            (run_tests, "acme-policies/mcp/tenants/tenants.rego:"),
        ],
    )
    def test_the_checks_read_the_given_folder(
        self, broken: Path, check: Callable[[PolicyTree], object], said: str
    ) -> None:
        with (
            pytest.raises(PolicyError, match=re.escape(said)),
            tree_with_overrides(broken, {}, find_opa()) as tree,
        ):
            check(tree)

    def test_overrides_are_merged_into_the_given_folder(self, acme: Path) -> None:
        overrides = {"network": {"allow": ["10.0.0.0/33"]}}
        with (
            pytest.raises(
                PolicyError, match=r"acme-policies/config/network/data\.yaml with opa_policy"
            ),
            tree_with_overrides(acme, overrides, find_opa()) as tree,
        ):
            check_data(tree)

    def test_a_bundle_has_the_policies_of_the_given_folder(
        self, acme: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(acme, acme.parent / "policies")
        limits = acme / "config" / "limits" / "data.yaml"
        limits.write_text(limits.read_text().replace("limit: 1000", "limit: 4321"))
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        (tmp_path / "key.pem").write_bytes(key)
        build = ("--policies", "own/acme-policies", "build", "--out", "made", "--key-id", "k")

        # Through standard input, as the role does.
        done = run_policyctl(tmp_path, *build, "--signing-key", "-", stdin=key.decode())

        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        packed = (tmp_path / "made" / "bundle.tar.gz").read_bytes()
        assert result["changed"]
        assert result["sha256"] == hashlib.sha256(packed).hexdigest()
        with tarfile.open(tmp_path / "made" / "bundle.tar.gz") as bundle:
            data = bundle.extractfile("/data.json")
            assert data is not None
            assert json.load(data)["config"]["limits"]["global"]["limit"] == 4321

        again = run_policyctl(tmp_path, *build, "--signing-key", "key.pem")

        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout) == result | {"changed": False}


def test_the_example_of_the_documentation_passes_all_checks(
    tree: PolicyTree, tmp_path: Path
) -> None:
    page = write_example(tree.folder)
    (changes,) = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    subprocess.run(["git", "apply"], cwd=tmp_path, input=changes, text=True, check=True)
    said: list[str] = []

    check_all(tree, said.append)

    before = sum(text.read_text().count("\ntest_") for text in POLICIES.rglob("*_test.rego"))
    assert said == [f"{before + 3} tests of the policies passed; coverage 100%"]
