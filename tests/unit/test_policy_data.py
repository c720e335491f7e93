"""The shipped policy data is that of the requirements (R8, R9); scripts/policy refuses what is wrong.

A change of policies/config that is meant belongs in the tables below as well.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", name="policy")
def _policy() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(
        "policy_command", str(ROOT / "scripts" / "policy")
    )
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(name="tree")
def _tree(policy: ModuleType, tmp_path: Path) -> Any:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    return policy.Tree(tmp_path / "policies", policy.opa_binary(None))


def shipped(area: str) -> Any:
    return yaml.safe_load((ROOT / "policies" / "config" / area / "data.yaml").read_text())


class TestShippedData:
    def test_the_roles_permit_what_the_requirements_say(self) -> None:
        viewer = {"tools:read", "metrics:query"}
        operator = viewer | {"tools:execute", "k8s:get", "k8s:scale"}
        permitted = {role: set(row["permissions"]) for role, row in shipped("roles").items()}
        assert permitted == {"mcp:viewer": viewer, "mcp:operator": operator, "mcp:admin": {"*"}}

    def test_the_namespaces_are_open_to_the_roles_of_the_requirements(self) -> None:
        namespaces = shipped("namespaces")
        assert {name: set(row["roles"]) for name, row in namespaces["listed"].items()} == {
            "production": {"mcp:admin"},
            "staging": {"mcp:operator", "mcp:admin"},
            "development": {"mcp:viewer", "mcp:operator", "mcp:admin"},
        }
        assert namespaces["cluster_wide"]["roles"] == ["mcp:admin"]
        assert namespaces["unlisted"]["roles"] == ["mcp:admin"]
        assert namespaces["grants_to_read"] == ["k8s:get"]

    def test_the_limits_are_those_of_the_requirements(self) -> None:
        limits = shipped("limits")
        hour = {"window_s": 3600}
        assert limits["global"] == {"limit": 1000} | hour
        assert limits["user"] == {"limit": 100} | hour
        assert {name: row["limit"] for name, row in limits["tool"].items()} == {
            "k8s:scale": 10,
            "k8s:restart": 5,
            "monitoring:create_dashboard": 20,
        }
        assert all(row["window_s"] == 3600 for row in limits["tool"].values())

    def test_everyone_may_connect_and_nothing_passes_while_a_store_is_down(self) -> None:
        assert shipped("network") == {"allow": []}
        assert shipped("tenants") == {"served": [], "suspended": []}
        assert shipped("stores") == {
            "counters": {"when_down": "deny"},
            "audit": {"when_down": "deny"},
        }

    def test_no_dangerous_function_is_among_the_capabilities(self, policy: ModuleType) -> None:
        text = (ROOT / "policies" / "capabilities.json").read_text()
        assert not [name for name in policy.FORBIDDEN_BUILTINS if f'"{name}"' in text]


class TestMerging:
    def test_objects_are_merged_and_everything_else_is_replaced(self, policy: ModuleType) -> None:
        base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
        assert policy.merged(base, {"a": {"c": [3]}, "e": 2}) == {
            "a": {"b": 1, "c": [3]},
            "d": 1,
            "e": 2,
        }

    @pytest.mark.parametrize("text", ["[1]", "limits", "{1: 2}", "{a: [}"])
    def test_overrides_that_are_no_mapping_are_refused(self, policy: ModuleType, text: str) -> None:
        with pytest.raises(policy.Refused, match="overrides of the policy data"):
            policy.read_overrides(text)

    def test_overrides_are_judged_like_the_files_they_change(self, policy: ModuleType) -> None:
        overrides = policy.read_overrides("{network: {allow: [10.0.0.0/33]}}")
        with (
            policy.tree_with(ROOT / "policies", overrides, policy.opa_binary(None)) as tree,
            pytest.raises(policy.Refused, match=r"network\.allow\.0.*not a CIDR block"),
        ):
            tree.lint()


class TestRefusals:
    def test_a_syntax_error_is_refused_with_file_and_line(
        self, policy: ModuleType, tree: Any
    ) -> None:
        file = tree.folder / "mcp" / "tenants" / "tenants.rego"
        line = len(file.read_text().splitlines()) + 1
        file.write_text(file.read_text() + "ok if = 1\n")
        with pytest.raises(policy.Refused, match=rf"policies/mcp/tenants/tenants\.rego:{line}"):
            tree.check_types()

    def test_a_misspelt_field_of_the_input_is_refused(self, policy: ModuleType, tree: Any) -> None:
        file = tree.folder / "mcp" / "tenants" / "tenants.rego"
        file.write_text(file.read_text().replace("properties.tenant", "properties.tenent"))
        with pytest.raises(policy.Refused, match="undefined ref"):
            tree.check_types()

    def test_reaching_for_the_network_is_refused(self, policy: ModuleType, tree: Any) -> None:
        file = tree.folder / "mcp" / "tenants" / "tenants.rego"
        file.write_text(file.read_text() + 'x := http.send({"method": "get", "url": "http://x"})\n')
        with pytest.raises(policy.Refused, match=r"undefined function http\.send"):
            tree.check_types()

    def test_data_that_is_no_yaml_is_refused_with_its_file(
        self, policy: ModuleType, tree: Any
    ) -> None:
        (tree.folder / "config" / "limits" / "data.yaml").write_text("user: {limit: 3\n")
        with pytest.raises(policy.Refused, match=r"policies/config/limits/data\.yaml"):
            tree.lint()


class TestRevision:
    def test_a_tree_outside_of_git_is_named_after_its_content(
        self, policy: ModuleType, tree: Any
    ) -> None:
        content = policy.content_hash(tree.folder)
        assert (
            policy.revision_of(tree.folder, content, overridden=False) == f"content-{content[:12]}"
        )

    def test_a_clean_tree_is_named_after_its_commit_and_a_changed_one_says_so(
        self, policy: ModuleType, tree: Any
    ) -> None:
        def git(*arguments: str) -> None:
            identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
            command = ["git", *identity, *arguments]
            subprocess.run(command, cwd=tree.folder, check=True, capture_output=True)

        git("init", "-q")
        git("add", ".")
        git("commit", "-q", "-m", "x")
        clean = policy.revision_of(tree.folder, policy.content_hash(tree.folder), overridden=False)
        assert len(clean) == 12

        test_file = tree.folder / "mcp" / "limits" / "limits_test.rego"
        test_file.write_text(test_file.read_text() + "\n")
        assert (
            policy.revision_of(tree.folder, policy.content_hash(tree.folder), overridden=False)
            == clean
        )

        limits = tree.folder / "config" / "limits" / "data.yaml"
        limits.write_text(limits.read_text().replace("100", "99"))
        content = policy.content_hash(tree.folder)
        changed = policy.revision_of(tree.folder, content, overridden=False)
        assert changed == f"{clean}-dirty.{content[:8]}"
