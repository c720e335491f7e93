package mcp.audit_test

import data.fixtures
import data.mcp.audit

_config := object.union(fixtures.config, {
	"audit": {"all_tenants": ["operators"]},
	"roles": {"mcp:auditor": {"permissions": ["audit:read"]}},
})

_request(tenant, properties) := object.union(
	fixtures.request(["mcp:auditor"], "audit/read"),
	{
		"subject": {"properties": {"tenant": tenant}},
		"resource": {"properties": properties},
	},
)

_codes(request) := codes if {
	refused := audit.why with input as request with data.config as _config
	ok := count(refused) == 0
	ok == _ok(request)
	codes := {reason.code | some reason in refused}
}

_ok(request) if audit.ok with input as request with data.config as _config

_ok(request) := false if not audit.ok with input as request with data.config as _config

test_a_subject_may_read_the_rows_of_its_tenant if _codes(_request("acme", {"tenant": "acme"})) == set()

test_a_subject_may_not_read_the_rows_of_another_tenant if {
	_codes(_request("acme", {"tenant": "operators"})) == {"audit_of_other_tenants"}
	_codes(_request("acme", {"tenant": ""})) == {"audit_of_other_tenants"}
}

test_a_subject_may_not_read_the_rows_of_all_tenants if _codes(_request("acme", {})) == {"audit_of_other_tenants"}

test_a_listed_tenant_may_read_all_rows if {
	_codes(_request("operators", {})) == set()
	_codes(_request("operators", {"tenant": "acme"})) == set()
}

test_other_methods_pass if {
	request := object.union(fixtures.request(["mcp:viewer"], "tools/list"), {"subject": {"properties": {"tenant": "acme"}}})
	_codes(request) == set()
}

test_the_permission_is_needed_too if {
	fixtures.decide(_request("acme", {"tenant": "acme"}), _config).effect == "allow"
	viewer := object.union(
		fixtures.request(["mcp:viewer"], "audit/read"),
		{"resource": {"properties": {"tenant": "default"}}},
	)
	answer := fixtures.decide(viewer, _config)
	answer.effect == "deny"
	fixtures.codes(answer) == {"method_not_permitted"}
}

test_rows_of_another_tenant_are_refused_with_the_reason if {
	answer := fixtures.decide(_request("acme", {}), _config)
	answer.effect == "deny"
	fixtures.codes(answer) == {"audit_of_other_tenants"}
}
