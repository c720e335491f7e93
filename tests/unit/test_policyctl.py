"""policyctl refuses policies that must not be published, and names the file, the reason and the fix."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyctl.bundle import BUNDLES_KEPT, content_hash, keep_bundle, revision_of
from policyctl.checks import (
    check_canary,
    check_data,
    check_deny_rules,
    check_layout,
    check_types,
)
from policyctl.data import merge_patch, parse_overrides
from policyctl.opa import PolicyError, find_opa
from policyctl.tree import PolicyTree, tree_with_overrides
from tests.policies import POLICIES, ROOT, run_policyctl, write_example

PROJECT = ROOT / "policyctl"


class TestOverrides:
    def test_objects_are_merged_and_everything_else_is_replaced(self) -> None:
        base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
        assert merge_patch(base, {"a": {"c": [3]}, "e": 2}) == {
            "a": {"b": 1, "c": [3]},
            "d": 1,
            "e": 2,
        }

    def test_null_removes_a_key(self) -> None:
        base = {"tool": {"k8s:scale": {"limit": 1}, "k8s:restart": {"limit": 2}}, "a": {"b": None}}
        assert merge_patch(base, {"tool": {"k8s:restart": None, "absent": None}}) == {
            "tool": {"k8s:scale": {"limit": 1}},
            "a": {"b": None},
        }

    @pytest.mark.parametrize(
        ("overrides", "said"),
        [
            ({"../../mcp/limits": {"a": 1}}, "../../mcp/limits is not an area of the policy data"),
            ({"limts": {"user": {}}}, "accepted are agents, audit, catalog, "),
            ({"input": {"a": 1}}, "input is not an area of the policy data"),
            ({"limits": [1]}, "opa_policy_data_overrides.limits must be a mapping"),
            ({"limits": None}, "opa_policy_data_overrides.limits must be a mapping"),
        ],
    )
    def test_overrides_of_an_unknown_area_are_refused_before_anything_is_written(
        self, overrides: dict[str, Any], said: str
    ) -> None:
        with (
            pytest.raises(PolicyError, match=re.escape(said)),
            tree_with_overrides(POLICIES, overrides, find_opa()),
        ):
            pass

    def test_a_limit_can_be_removed(self) -> None:
        overrides = parse_overrides("{limits: {tool: {'k8s:restart': null}}}")
        with tree_with_overrides(POLICIES, overrides, find_opa()) as tree:
            check_data(tree)
            file = tree.folder / "config" / "limits" / "data.yaml"
            assert "k8s:restart" not in yaml.safe_load(file.read_text())["tool"]

    @pytest.mark.parametrize("text", ["[1]", "limits", "{1: 2}", "{a: [}", "{a: {b: 1, b: 2}}"])
    def test_overrides_that_are_not_a_mapping_are_refused(self, text: str) -> None:
        with pytest.raises(PolicyError, match="overrides of the policy data"):
            parse_overrides(text)

    def test_overrides_are_checked_like_the_files_that_they_change(self) -> None:
        overrides = parse_overrides("{network: {allow: [10.0.0.0/33]}}")
        with (
            tree_with_overrides(POLICIES, overrides, find_opa()) as tree,
            pytest.raises(
                PolicyError,
                match=r"data\.yaml with opa_policy_data_overrides\.network: network\.allow\.0.*CIDR",
            ),
        ):
            check_data(tree)


class TestChecks:
    def test_a_syntax_error_is_refused_with_file_and_line(self, tree: PolicyTree) -> None:
        file = tree.folder / "mcp" / "tenants" / "tenants.rego"
        line = len(file.read_text().splitlines()) + 1
        file.write_text(file.read_text() + "ok if = 1\n")
        with pytest.raises(PolicyError, match=rf"policies/mcp/tenants/tenants\.rego:{line}"):
            check_types(tree)

    def test_a_misspelt_field_of_the_input_is_refused(self, tree: PolicyTree) -> None:
        file = tree.folder / "mcp" / "tenants" / "tenants.rego"
        file.write_text(file.read_text().replace("properties.tenant", "properties.tenent"))
        with pytest.raises(PolicyError, match="undefined ref"):
            check_types(tree)

    def test_a_request_over_the_network_is_refused(self, tree: PolicyTree) -> None:
        file = tree.folder / "mcp" / "tenants" / "tenants.rego"
        file.write_text(file.read_text() + 'x := http.send({"method": "get", "url": "http://x"})\n')
        with pytest.raises(PolicyError, match=r"undefined function http\.send"):
            check_types(tree)

    def test_data_that_is_not_yaml_is_refused_with_its_file(self, tree: PolicyTree) -> None:
        (tree.folder / "config" / "limits" / "data.yaml").write_text("user: {limit: 3\n")
        with pytest.raises(PolicyError, match=r"policies/config/limits/data\.yaml"):
            check_data(tree)

    def test_a_network_with_a_typing_error_is_refused_with_its_value(
        self, tree: PolicyTree
    ) -> None:
        file = tree.folder / "config" / "network" / "data.yaml"
        file.write_text("allow: [10.20.0.0/16, 10.2O.0.0/8]\n")
        with pytest.raises(
            PolicyError,
            match=r"policies/config/network/data\.yaml: network\.allow\.1: .*10\.2O\.0\.0/8",
        ):
            check_data(tree)

    @pytest.mark.parametrize("text", ["", "# allow: []\n", "- 10.0.0.0/8\n"])
    def test_a_file_without_keys_is_refused_by_its_name(self, tree: PolicyTree, text: str) -> None:
        (tree.folder / "config" / "network" / "data.yaml").write_text(text)
        with pytest.raises(
            PolicyError, match=r"policies/config/network/data\.yaml: network: is empty or has no"
        ):
            check_data(tree)

    def test_a_missing_signing_key_is_named(self, tmp_path: Path) -> None:
        done = run_policyctl(
            tmp_path,
            *("--policies", str(POLICIES), "build", "--out", "made"),
            *("--signing-key", "k.pem", "--key-id", "k"),
        )
        assert done.returncode == 1
        assert done.stderr == "The signing key k.pem cannot be read: No such file or directory.\n"

    def test_a_duplicate_key_is_refused(self, tree: PolicyTree) -> None:
        file = tree.folder / "config" / "roles" / "data.yaml"
        file.write_text(file.read_text() + 'mcp:viewer: {permissions: ["*"]}\n')
        with pytest.raises(
            PolicyError, match=r"policies/config/roles/data\.yaml.*duplicate key 'mcp:viewer'"
        ):
            check_data(tree)

    def test_a_limit_of_an_unknown_tool_is_refused(self, tree: PolicyTree) -> None:
        file = tree.folder / "config" / "limits" / "data.yaml"
        file.write_text(file.read_text().replace("k8s:restart", "k8s:restrat"))
        with pytest.raises(PolicyError, match=r"limits\.tool\.k8s:restrat: limits nothing"):
            check_data(tree)

    @pytest.mark.parametrize(
        ("place", "text", "said"),
        [
            ("config/limits/acme.yaml", "tool: {}", "policies/config/AREA/data.yaml"),
            ("config/limits/data.json", "{}", "policies/config/AREA/data.yaml"),
            ("config/data.yaml", "limits: {}", "policies/config/AREA/data.yaml"),
            ("more.yml", "config: {limits: {}}", "policies/config/AREA/data.yaml"),
            ("mcp/limits/data.yaml", "{}", "policies/config/AREA/data.yaml"),
            ("mcp/limits/more.rego", "package mcp.limit\n", "its package must be mcp.limits"),
            ("mcp/more_test.rego", "package mcp\n", "the package of a test must end with _test"),
            ("lint/more.rego", "package mcp.limits\n", "its package must be lint"),
            ("more/more.rego", "package more\n", "rules belong in policies/mcp/PACKAGE"),
        ],
    )
    def test_a_file_that_would_be_checked_but_not_published_is_refused(
        self, tree: PolicyTree, place: str, text: str, said: str
    ) -> None:
        check_layout(tree)
        (tree.folder / place).parent.mkdir(exist_ok=True)
        (tree.folder / place).write_text(text)

        with pytest.raises(PolicyError, match=re.escape(f"policies/{place}: ")) as caught:
            check_layout(tree)
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        "rule",
        [
            "deny if input.x",
            "deny := true",
            'deny["no"] if input.x',
            'deny contains "no" if input.x',
            'deny contains {"code": "no"} if input.x',
            "default deny := false",
        ],
    )
    def test_a_deny_rule_that_is_no_set_of_reasons_is_refused_with_its_place(
        self, tree: PolicyTree, rule: str
    ) -> None:
        write_example(tree.folder)
        check_deny_rules(tree)
        (tree.folder / "mcp/late").mkdir()
        (tree.folder / "mcp/late/late.rego").write_text(f"package mcp.late\n\n{rule}\n")

        with pytest.raises(PolicyError) as caught:
            check_deny_rules(tree)
        _, found = str(caught.value).splitlines()
        assert found == (
            'policies/mcp/late/late.rego:3: write "deny contains reasons.because(rego.metadata.chain(), '
            '[])" with the reason in the METADATA of the rule'
        )

    @pytest.mark.parametrize(
        ("package", "call"),
        [
            ("mcp/tenants", "time.now_ns()"),
            ("mcp/tenants", 'io.jwt.decode_verify("x", {"secret": "s"})'),
            ("mcp/tenants", 'io.jwt.encode_sign({"alg": "HS256"}, {}, {})'),
            ("mcp/tenants", 'crypto.x509.parse_and_verify_certificates("x")'),
            ("mcp/tenants", 'json.match_schema("1", {"$ref": "https://schemas.example/x.json"})'),
            ("fixtures", "time.now_ns()"),
            ("system/authz", 'json.verify_schema({"$ref": "https://schemas.example/x.json"})'),
            ("lint", "time.now_ns()"),
            ("lint", 'http.send({"method": "get", "url": "http://x"})'),
        ],
    )
    def test_rules_that_use_the_clock_or_the_network_are_refused(
        self, tree: PolicyTree, package: str, call: str
    ) -> None:
        file = tree.folder / package / f"{package.rpartition('/')[2]}.rego"
        file.write_text(f"{file.read_text()}\nx := {call}\n")
        function = re.escape(call.partition("(")[0])
        with pytest.raises(PolicyError, match=rf"undefined function {function}"):
            check_types(tree)

    def test_data_that_permits_nothing_to_anybody_is_refused(self) -> None:
        roles = yaml.safe_load((POLICIES / "config" / "roles" / "data.yaml").read_text())
        nobody: dict[str, Any] = {"roles": {role: {"permissions": []} for role in roles}}
        with (
            tree_with_overrides(POLICIES, nobody, find_opa()) as tree,
            pytest.raises(PolicyError, match=r"canary decision fails.*every role"),
        ):
            check_canary(tree)


class TestRevision:
    def test_a_tree_outside_of_git_is_named_after_its_content(self, tree: PolicyTree) -> None:
        content = content_hash(tree)
        assert revision_of(tree.folder, content, overridden=False) == f"content-{content[:12]}"

    def test_a_clean_tree_is_named_after_its_commit_and_a_changed_one_says_so(
        self, tree: PolicyTree
    ) -> None:
        def git(*arguments: str) -> None:
            identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
            command = ["git", *identity, *arguments]
            subprocess.run(command, cwd=tree.folder, check=True, capture_output=True)

        git("init", "-q")
        git("add", ".")
        git("commit", "-q", "-m", "x")
        clean = revision_of(tree.folder, content_hash(tree), overridden=False)
        assert len(clean) == 12

        test_file = tree.folder / "mcp" / "limits" / "limits_test.rego"
        test_file.write_text(test_file.read_text() + "\n")
        assert revision_of(tree.folder, content_hash(tree), overridden=False) == clean

        limits = tree.folder / "config" / "limits" / "data.yaml"
        limits.write_text(limits.read_text().replace("100", "99"))
        content = content_hash(tree)
        changed = revision_of(tree.folder, content, overridden=False)
        assert changed == f"{clean}-dirty.{content[:8]}"


class TestKeptBundles:
    def test_the_newest_are_kept_by_their_revision(self, tmp_path: Path) -> None:
        folder = tmp_path / "published"
        names = [f"{number:012}-inventory.12345678.tar.gz" for number in range(25)]
        for number, name in enumerate(names):
            keep_bundle(b"bundle", folder / name)
            os.utime(folder / name, ns=(number, number))

        assert sorted(path.name for path in folder.iterdir()) == names[-BUNDLES_KEPT:]
        assert folder.stat().st_mode & 0o777 == 0o700


class TestCommand:
    def test_the_exit_code_of_opa_is_passed_on(self) -> None:
        undefined = ("opa", "eval", "--fail", "data.nothing")

        assert run_policyctl(ROOT, "opa", "version").returncode == 0
        assert run_policyctl(ROOT, *undefined).returncode == 1
        assert run_policyctl(ROOT, "opa", "no-such-command").returncode not in {0, 2}

    def test_wrong_options_end_with_2(self) -> None:
        assert run_policyctl(ROOT, "chekc").returncode == 2
        assert run_policyctl(ROOT, "build").returncode == 2

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        done = run_policyctl(tmp_path, "lint")

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"There is no folder {tmp_path}/policies; ")

    def test_a_command_to_copy_names_the_folder_without_dots_and_symbolic_links_as_given(
        self, tree: PolicyTree, tmp_path: Path
    ) -> None:
        with (tree.folder / "mcp" / "tenants" / "tenants.rego").open("a") as rules:
            rules.write("\n\n\n")
        (tmp_path / "roles" / "opa").mkdir(parents=True)
        (tmp_path / "mine").symlink_to(tree.folder)
        given = f"{tmp_path}/roles/opa/../../mine"

        done = run_policyctl(ROOT, "--policies", given, "check")

        assert done.returncode == 1
        command = f"policyctl --policies {tmp_path}/mine opa fmt --write mine"
        assert f"not formatted; run `{command}`:\n" in done.stderr

    def test_dots_after_a_symbolic_link_do_not_lead_to_another_folder(
        self, tree: PolicyTree, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere" / "policies").mkdir(parents=True)
        (tmp_path / "elsewhere" / "link").symlink_to(tree.folder)

        done = run_policyctl(tmp_path, "--policies", "elsewhere/link/../policies", "lint")

        assert (done.returncode, done.stdout) == (0, "The policy data is valid.\n"), done.stderr

    def test_without_opa_the_message_says_where_it_was_looked_for_and_what_to_do(
        self, tmp_path: Path
    ) -> None:
        nowhere = {"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)}

        done = run_policyctl(ROOT, "lint", environment=nowhere)

        assert (done.returncode, done.stdout) == (1, "")
        assert f"OPA was not found: there is no {tmp_path}/enterprise-mcp/bin/opa-" in done.stderr
        assert "scripts/build_opa" in done.stderr
        assert "--opa FILE" in done.stderr

    def test_an_opa_that_is_named_and_missing_is_not_replaced_by_another(self) -> None:
        done = run_policyctl(ROOT, "--opa", "/absent/opa", "lint")

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "There is no OPA binary /absent/opa, or it cannot be executed.\n"

    def test_opa_on_the_path_is_used_when_the_cache_is_empty(self, tmp_path: Path) -> None:
        (tmp_path / "opa").symlink_to(find_opa())

        done = run_policyctl(
            ROOT, "lint", environment={"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)}
        )

        assert (done.returncode, done.stdout) == (0, "The policy data is valid.\n"), done.stderr


class TestPackage:
    """policyctl needs PyYAML, OPA and a folder of policies; nothing else of the repository."""

    def test_it_imports_the_standard_library_and_pyyaml_only(self) -> None:
        imported = set()
        for file in PROJECT.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add((node.module or "").partition(".")[0])
        described = tomllib.loads((PROJECT / "pyproject.toml").read_text())

        assert imported - sys.stdlib_module_names == {"policyctl", "yaml"}
        assert [name[:6] for name in described["project"]["dependencies"]] == ["pyyaml"]

    def test_it_works_away_from_the_repository(self, tree: PolicyTree, tmp_path: Path) -> None:
        libraries = tmp_path / "libraries"
        shutil.copytree(PROJECT / "src", libraries)
        (libraries / "yaml").symlink_to(Path(yaml.__file__).parent)

        done = subprocess.run(
            # -S: without the packages of .venv.
            [sys.executable, "-S", "-P", "-m", "policyctl", "--opa", str(find_opa()), "lint"],
            cwd=tree.folder.parent,
            env={"PYTHONPATH": str(libraries), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

        assert (done.returncode, done.stdout) == (0, "The policy data is valid.\n"), done.stderr
