"""The shipped policy data matches the requirements (R8, R9), and its documents those of the server.

An intended change of policies/config belongs in the tables below as well.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.policy.protocol import (
    Action,
    Context,
    DecisionInput,
    Resource,
    SignInInput,
    SubjectInput,
)
from policyctl.checks import FORBIDDEN_BUILTINS, check_canary, write_capabilities
from policyctl.tree import PolicyTree
from tests.policies import POLICIES


def evaluate(tree: PolicyTree, query: str, document: Any, *options: str) -> Any:
    """Return the output of `opa eval` for a query, with `document` as its input."""
    file = tree.folder.parent / "input.json"
    file.write_text(json.dumps(document))
    arguments = ("--format", "json", "--ignore", "capabilities.json", "--data", "policies")
    return json.loads(
        tree.opa_output(query, "eval", *arguments, "--input", str(file), *options, query)
    )


def shipped(area: str) -> Any:
    return yaml.safe_load((POLICIES / "config" / area / "data.yaml").read_text())


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
        assert permitted == {
            "mcp:viewer": viewer,
            "mcp:operator": operator,
            "mcp:auditor": {"audit:read"},
            "mcp:admin": {"*"},
        }

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

    def test_failed_sign_ins_are_limited_for_users_and_addresses(self) -> None:
        assert shipped("sign_in") == {
            "password": {
                "user": {"limit": 5, "window_s": 900},
                "address": {"limit": 50, "window_s": 900},
            },
            "token": {"address": {"limit": 100, "window_s": 300}},
        }

    def test_everyone_may_connect_and_nothing_passes_while_a_store_is_down(self) -> None:
        assert shipped("audit") == {"all_tenants": ["default"]}
        assert shipped("network") == {"allow": []}
        assert shipped("lockdown") == {"active": False, "roles": ["mcp:admin"]}
        assert shipped("tenants") == {"served": [], "suspended": []}
        assert shipped("stores") == {
            "counters": {"when_down": "deny"},
            "audit": {"when_down": "deny"},
        }

    def test_no_dangerous_function_is_among_the_capabilities(self) -> None:
        text = (POLICIES / "capabilities.json").read_text()
        assert not [name for name in FORBIDDEN_BUILTINS if f'"{name}"' in text]
        assert not [b["name"] for b in json.loads(text)["builtins"] if b.get("nondeterministic")]

    def test_the_capabilities_are_those_of_the_opa_that_decides(self, tree: PolicyTree) -> None:
        write_capabilities(tree)
        written = (tree.folder / "capabilities.json").read_text()
        assert written == (POLICIES / "capabilities.json").read_text()


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

    CONTEXT = Context("192.0.2.1", "2026-01-07T12:00:00Z", "n", "r", "mcp", "up", "up")
    SENT = DecisionInput(
        SubjectInput("a", "t", ("r",), ("g",), ("s",), "j", "i", "c", "b"),
        Action("tools/call"),
        Resource("tool", "x"),
        CONTEXT,
    ).to_json()

    @pytest.mark.parametrize(
        "tried",
        [
            'data.fixtures.request(["mcp:viewer"], "ping")',
            'data.fixtures.call({"mcp:viewer"}, "k8s:get_pods", {"namespace": "staging"})',
            'data.mcp.decision._canary_request({"issuer": "i", "tenant": "t"}, [], "ping", "tool", "x")',
        ],
    )
    def test_the_fixture_and_the_canary_have_the_fields_that_the_server_sends(
        self, tree: PolicyTree, tried: str
    ) -> None:
        (result,) = evaluate(tree, f"x := {tried}", None)["result"]
        document = result["bindings"]["x"]

        assert fields(document) == fields(self.SENT)
        assert document["subject"]["type"] == self.SENT["subject"]["type"]

    def test_the_schema_asks_for_the_fields_that_the_server_sends(self) -> None:
        schema = json.loads((POLICIES / "schemas" / "input" / "schema.json").read_text())

        def required(node: dict[str, Any], path: str = "") -> set[str]:
            return {path}.union(
                *(required(node["properties"][k], f"{path}.{k}") for k in node.get("required", ()))
            )

        assert required(schema) == fields(self.SENT)
        assert schema["properties"]["subject"]["properties"]["type"]["const"] == "user"

    def test_the_input_about_a_sign_in_has_the_fields_that_the_server_sends(
        self, tree: PolicyTree
    ) -> None:
        sent = SignInInput("password", "alice", self.CONTEXT).to_json()
        schema = json.loads((POLICIES / "schemas" / "sign_in_input" / "schema.json").read_text())
        (result,) = evaluate(tree, 'x := data.mcp.sign_in_test._attempt("token", "")', None)[
            "result"
        ]

        assert fields(result["bindings"]["x"]) == fields(sent)
        assert set(schema["required"]) == set(sent)
        assert schema["properties"]["attempt"]["required"] == ["method", "user"]

    def test_a_rule_that_asks_for_a_whole_document_lets_the_canary_pass(
        self, tree: PolicyTree
    ) -> None:
        with (tree.folder / "mcp" / "network" / "network.rego").open("a") as rules:
            rules.write("""
# METADATA
# title: The document is whole
# custom:
#   code: no_whole_document
#   message: no whole document
#   solution: send a whole document
deny contains reasons.because(rego.metadata.chain(), []) if not _whole

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
        check_canary(tree)


class TestBatch:
    """A batch works out each question once (policies/mcp/batch says how): counted, not timed."""

    def test_eight_questions_cost_eight_times_one_and_little_besides(
        self, tree: PolicyTree
    ) -> None:
        call = 'data.fixtures.call(["mcp:viewer"], "monitoring:get_alerts", {})'
        question = evaluate(tree, call, None)["result"][0]["expressions"][0]["value"]
        questions = {str(n): question for n in range(8)}

        answer, alone = self._asked(tree, "data.mcp.decision.authorize", question)
        answers, together = self._asked(tree, "data.mcp.batch.answers", {"questions": questions})

        assert answers == dict.fromkeys(questions, answer)
        assert together <= 8 * (alone + 12)

    def _asked(self, tree: PolicyTree, query: str, document: Any) -> tuple[Any, int]:
        """Return what OPA answers, and how many expressions it evaluates for that."""
        told = evaluate(tree, query, document, "--profile", "--profile-limit", "0")
        evaluated = sum(expression["num_eval"] for expression in told["profile"])
        return told["result"][0]["expressions"][0]["value"], evaluated
