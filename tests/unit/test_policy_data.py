"""The shipped policy data is that of the requirements (R8, R9); scripts/policy refuses what is wrong.

A change of policies/config that is meant belongs in the tables below as well.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.policy.protocol import (
    Action,
    Context,
    DecisionInput,
    Resource,
    SubjectInput,
)
from tests.policy_command import ROOT, run_policy, write_example


def evaluate(tree: Any, query: str, document: Any, *options: str) -> Any:
    """Return what `opa eval` says of a query, with `document` as its input."""
    file = tree.folder.parent / "input.json"
    file.write_text(json.dumps(document))
    arguments = ("--format", "json", "--ignore", "capabilities.json", "--data", "policies")
    return json.loads(tree.must(query, "eval", *arguments, "--input", str(file), *options, query))


def shipped(area: str) -> Any:
    return yaml.safe_load((ROOT / "policies" / "config" / area / "data.yaml").read_text())


class TestShippedData:
    def test_a_call_may_take_what_its_tool_declares(self) -> None:
        obligations = shipped("obligations")
        default = obligations["default"]["timeout_s"]
        obliged = {
            tool.name: obligations["tool"].get(tool.name, {}).get("timeout_s", default)
            for tool in every_tool()
        }
        assert obliged == {tool.name: tool.timeout_s for tool in every_tool()}

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
        assert not [b["name"] for b in json.loads(text)["builtins"] if b.get("nondeterministic")]

    def test_the_capabilities_are_those_of_the_opa_that_decides(
        self, policy: ModuleType, tree: Any
    ) -> None:
        policy.write_capabilities(tree)
        written = (tree.folder / "capabilities.json").read_text()
        assert written == (ROOT / "policies" / "capabilities.json").read_text()


def fields(value: Any, path: str = "") -> set[str]:
    """Return the paths of a document's fields, without those that depend on what is asked for."""
    if not isinstance(value, dict) or path in {
        ".resource.properties",
        ".action.properties.arguments",
    }:
        return {path}
    return {path, *(name for key, item in value.items() for name in fields(item, f"{path}.{key}"))}


class TestDocuments:
    """What the policies are tried with is what the server sends (mcp_server/policy/protocol.py)."""

    SENT = DecisionInput(
        SubjectInput("a", "t", ("r",), ("g",), ("s",), "j"),
        Action("tools/call"),
        Resource("tool", "x"),
        Context("192.0.2.1", "2026-01-07T12:00:00Z", "n", "r", "mcp", "up", "up"),
    ).to_json()

    @pytest.mark.parametrize(
        "tried",
        [
            'data.fixtures.request(["mcp:viewer"], "ping")',
            'data.fixtures.call({"mcp:viewer"}, "k8s:get_pods", {"namespace": "staging"})',
            'data.mcp.decision._canary_request(["mcp:viewer"], "tools/call", "tool", "x")',
        ],
    )
    def test_the_fixture_and_the_canary_have_the_fields_that_the_server_sends(
        self, tree: Any, tried: str
    ) -> None:
        (result,) = evaluate(tree, f"x := {tried}", None)["result"]
        document = result["bindings"]["x"]

        assert fields(document) == fields(self.SENT)
        assert document["subject"]["type"] == self.SENT["subject"]["type"]

    def test_the_schema_asks_for_the_fields_that_the_server_sends(self) -> None:
        schema = json.loads((ROOT / "policies" / "schemas" / "input" / "schema.json").read_text())

        def required(node: dict[str, Any], path: str = "") -> set[str]:
            return {path}.union(
                *(required(node["properties"][k], f"{path}.{k}") for k in node.get("required", ()))
            )

        assert required(schema) == fields(self.SENT)
        assert schema["properties"]["subject"]["properties"]["type"]["const"] == "user"

    def test_a_rule_that_asks_for_a_whole_document_lets_the_canary_pass(self, tree: Any) -> None:
        with (tree.folder / "mcp" / "network" / "network.rego").open("a") as rules:
            rules.write("""
deny contains "no whole document" if not _whole

_whole if {
	input.subject.type == "user"
	is_array(input.subject.properties.roles)
	is_array(input.subject.properties.groups)
	is_array(input.subject.properties.scopes)
	is_string(input.subject.properties.token_id)
	is_object(input.action.properties.arguments)
	is_array(input.action.properties.withheld)
	is_object(input.resource.properties)
}
""")
        tree.sing()


class TestMerging:
    def test_objects_are_merged_and_everything_else_is_replaced(self, policy: ModuleType) -> None:
        base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
        assert policy.merged(base, {"a": {"c": [3]}, "e": 2}) == {
            "a": {"b": 1, "c": [3]},
            "d": 1,
            "e": 2,
        }

    def test_null_takes_a_key_away(self, policy: ModuleType) -> None:
        base = {"tool": {"k8s:scale": {"limit": 1}, "k8s:restart": {"limit": 2}}, "a": {"b": None}}
        assert policy.merged(base, {"tool": {"k8s:restart": None, "absent": None}}) == {
            "tool": {"k8s:scale": {"limit": 1}},
            "a": {"b": None},
        }

    @pytest.mark.parametrize(
        ("overrides", "said"),
        [
            ({"../../mcp/limits": {"a": 1}}, "../../mcp/limits is not a part of the policy data"),
            ({"limts": {"user": {}}}, "accepted are catalog, limits, methods, "),
            ({"input": {"a": 1}}, "input is not a part of the policy data"),
            ({"limits": [1]}, "opa_policy_data_overrides.limits must be a mapping"),
            ({"limits": None}, "opa_policy_data_overrides.limits must be a mapping"),
        ],
    )
    def test_overrides_of_something_else_are_refused_before_anything_is_written(
        self, policy: ModuleType, overrides: dict[str, Any], said: str
    ) -> None:
        with (
            pytest.raises(policy.Refused, match=re.escape(said)),
            policy.tree_with(ROOT / "policies", overrides, policy.opa_binary(None)),
        ):
            pass

    def test_a_limit_can_be_taken_away(self, policy: ModuleType) -> None:
        overrides = policy.read_overrides("{limits: {tool: {'k8s:restart': null}}}")
        with policy.tree_with(ROOT / "policies", overrides, policy.opa_binary(None)) as tree:
            tree.lint()
            file = tree.folder / "config" / "limits" / "data.yaml"
            assert "k8s:restart" not in yaml.safe_load(file.read_text())["tool"]

    @pytest.mark.parametrize("text", ["[1]", "limits", "{1: 2}", "{a: [}", "{a: {b: 1, b: 2}}"])
    def test_overrides_that_are_no_mapping_are_refused(self, policy: ModuleType, text: str) -> None:
        with pytest.raises(policy.Refused, match="overrides of the policy data"):
            policy.read_overrides(text)

    def test_overrides_are_judged_like_the_files_they_change(self, policy: ModuleType) -> None:
        overrides = policy.read_overrides("{network: {allow: [10.0.0.0/33]}}")
        with (
            policy.tree_with(ROOT / "policies", overrides, policy.opa_binary(None)) as tree,
            pytest.raises(
                policy.Refused,
                match=r"data\.yaml with opa_policy_data_overrides\.network: network\.allow\.0.*CIDR",
            ),
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

    def test_a_network_with_a_typing_error_is_refused_with_its_value(
        self, policy: ModuleType, tree: Any
    ) -> None:
        file = tree.folder / "config" / "network" / "data.yaml"
        file.write_text("allow: [10.20.0.0/16, 10.2O.0.0/8]\n")
        with pytest.raises(
            policy.Refused,
            match=r"policies/config/network/data\.yaml: network\.allow\.1: .*10\.2O\.0\.0/8",
        ):
            tree.lint()

    @pytest.mark.parametrize("text", ["", "# allow: []\n", "- 10.0.0.0/8\n"])
    def test_a_file_without_keys_is_refused_by_its_name(
        self, policy: ModuleType, tree: Any, text: str
    ) -> None:
        (tree.folder / "config" / "network" / "data.yaml").write_text(text)
        with pytest.raises(
            policy.Refused, match=r"policies/config/network/data\.yaml: network: is empty or has no"
        ):
            tree.lint()

    def test_a_signing_key_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        done = run_policy(
            tmp_path, "build", "--out", "made", "--signing-key", "k.pem", "--key-id", "k"
        )
        assert (done.returncode, done.stderr) == (1, "There is no signing key k.pem.\n")

    def test_a_key_that_stands_twice_is_refused(self, policy: ModuleType, tree: Any) -> None:
        file = tree.folder / "config" / "roles" / "data.yaml"
        file.write_text(file.read_text() + 'mcp:viewer: {permissions: ["*"]}\n')
        with pytest.raises(
            policy.Refused, match=r"policies/config/roles/data\.yaml.*'mcp:viewer' stands twice"
        ):
            tree.lint()

    def test_a_limit_for_a_name_that_does_not_exist_is_refused(
        self, policy: ModuleType, tree: Any
    ) -> None:
        file = tree.folder / "config" / "limits" / "data.yaml"
        file.write_text(file.read_text().replace("k8s:restart", "k8s:restrat"))
        with pytest.raises(policy.Refused, match=r"limits\.tool\.k8s:restrat: limits nothing"):
            tree.lint()

    @pytest.mark.parametrize(
        ("place", "text", "said"),
        [
            ("config/limits/acme.yaml", "tool: {}", "policies/config/PART/data.yaml"),
            ("config/limits/data.json", "{}", "policies/config/PART/data.yaml"),
            ("config/data.yaml", "limits: {}", "policies/config/PART/data.yaml"),
            ("more.yml", "config: {limits: {}}", "policies/config/PART/data.yaml"),
            ("mcp/limits/data.yaml", "{}", "policies/config/PART/data.yaml"),
            ("mcp/limits/more.rego", "package mcp.limit\n", "its package must be mcp.limits"),
            ("mcp/more_test.rego", "package mcp\n", "the package of a test ends with _test"),
            ("lint/more.rego", "package mcp.limits\n", "its package must be lint"),
            ("more/more.rego", "package more\n", "rules stand in policies/mcp/PACKAGE"),
        ],
    )
    def test_what_would_be_checked_and_not_shipped_is_refused(
        self, policy: ModuleType, tree: Any, place: str, text: str, said: str
    ) -> None:
        tree.check_places()
        (tree.folder / place).parent.mkdir(exist_ok=True)
        (tree.folder / place).write_text(text)

        with pytest.raises(policy.Refused, match=re.escape(f"policies/{place}: ")) as caught:
            tree.check_places()
        assert said in str(caught.value)

    def test_a_deny_for_which_no_decision_asks_is_refused_with_where_it_belongs(
        self, policy: ModuleType, tree: Any
    ) -> None:
        tree.check_joined()
        write_example(tree.folder)

        with pytest.raises(policy.Refused) as caught:
            tree.check_joined()
        assert re.search(
            r"^policies/mcp/hours/hours\.rego:27: join hours\.deny to _refusals in policies/mcp/",
            str(caught.value),
            re.MULTILINE,
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
    def test_rules_that_ask_a_clock_or_the_network_are_refused(
        self, policy: ModuleType, tree: Any, package: str, call: str
    ) -> None:
        file = tree.folder / package / f"{package.rpartition('/')[2]}.rego"
        file.write_text(f"{file.read_text()}\nx := {call}\n")
        function = re.escape(call.partition("(")[0])
        with pytest.raises(policy.Refused, match=rf"undefined function {function}"):
            tree.check_types()

    def test_data_by_which_nobody_may_do_anything_is_refused_before_it_is_packed(
        self, policy: ModuleType
    ) -> None:
        nobody: dict[str, Any] = {"roles": {role: {"permissions": []} for role in shipped("roles")}}
        with (
            policy.tree_with(ROOT / "policies", nobody, policy.opa_binary(None)) as tree,
            pytest.raises(policy.Refused, match=r"canary decision fails.*every role"),
        ):
            tree.sing()


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


class TestBatch:
    """A batch works out each question once (policies/mcp/batch says how): counted, not timed."""

    @pytest.mark.parametrize(("entry", "more"), [("decide", {}), ("admit", {"counts": []})])
    def test_eight_questions_cost_eight_times_one_and_little_besides(
        self, tree: Any, entry: str, more: dict[str, Any]
    ) -> None:
        call = 'data.fixtures.call(["mcp:viewer"], "monitoring:get_alerts", {})'
        question = evaluate(tree, call, None)["result"][0]["expressions"][0]["value"] | more
        questions = {str(n): {"entry": entry, "input": question} for n in range(8)}

        answer, alone = self._asked(tree, f"data.mcp.decision.{entry}", question)
        answers, together = self._asked(tree, "data.mcp.batch.answers", {"questions": questions})

        assert answers == dict.fromkeys(questions, answer)
        assert together <= 8 * (alone + 12)

    def _asked(self, tree: Any, query: str, document: Any) -> tuple[Any, int]:
        """Return what OPA answers, and how many expressions it evaluates for that."""
        told = evaluate(tree, query, document, "--profile", "--profile-limit", "0")
        evaluated = sum(expression["num_eval"] for expression in told["profile"])
        return told["result"][0]["expressions"][0]["value"], evaluated


class TestKeptBundles:
    def test_the_last_ones_are_kept_by_their_revision(
        self, policy: ModuleType, tmp_path: Path
    ) -> None:
        folder = tmp_path / "published"
        names = [f"{number:012}-inventory.12345678.tar.gz" for number in range(25)]
        for number, name in enumerate(names):
            policy.keep(b"bundle", folder / name)
            os.utime(folder / name, ns=(number, number))

        assert sorted(path.name for path in folder.iterdir()) == names[-policy.BUNDLES_KEPT :]
        assert folder.stat().st_mode & 0o777 == 0o700
