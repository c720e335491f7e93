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

_BROKEN_TEST = "package mcp.tenants.broken_test\n\ntest_water_is_dry if 1 == 2\n"


@pytest.fixture
def key() -> str:
    """A new key that signs bundles (PEM)."""
    private = ec.generate_private_key(ec.SECP256R1())
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class TestFolder:
    """The folder of policies may have any name, and another one beside it may be named `policies`."""

    @pytest.fixture(name="acme")
    def _acme(self, tmp_path: Path) -> Path:
        # Without property tests: they take most of the time, and `make check` runs them.
        skipped = shutil.ignore_patterns("properties_test.rego")
        return Path(shutil.copytree(POLICIES, tmp_path / "own" / "acme-policies", ignore=skipped))

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
        self, acme: Path, key: str, tmp_path: Path
    ) -> None:
        shutil.copytree(acme, acme.parent / "policies")
        limits = acme / "config" / "limits" / "data.yaml"
        limits.write_text(limits.read_text().replace("limit: 1000", "limit: 4321"))
        (tmp_path / "key.pem").write_text(key)
        build = ("--policies", "own/acme-policies", "build", "--out", "made", "--key-id", "k")

        # Through standard input, as the role does.
        done = run_policyctl(tmp_path, *build, "--signing-key", "-", stdin=key)

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

    def test_a_bundle_is_built_without_tests_and_format_if_asked(
        self, acme: Path, key: str, tmp_path: Path
    ) -> None:
        (acme / "mcp" / "tenants" / "broken_test.rego").write_text(f"{_BROKEN_TEST}\n\n\n")
        build = ("--policies", str(acme), "build", "--out", "made", "--key-id", "k")

        done = run_policyctl(tmp_path, *build, "--signing-key", "-", "--skip-tests", stdin=key)

        assert done.returncode == 0, done.stderr
        assert (tmp_path / "made" / "bundle.tar.gz").exists()

    @pytest.mark.parametrize("file", ["tenants/broken_test.rego", "tenants/properties_test.rego"])
    def test_a_test_that_fails_is_named(self, acme: Path, file: str) -> None:
        (acme / "mcp" / file).write_text(_BROKEN_TEST)
        with (
            tree_with_overrides(acme, {}, find_opa()) as tree,
            pytest.raises(PolicyError, match=r"broken_test\.test_water_is_dry: FAIL"),
        ):
            run_tests(tree)


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
