package mcp.issuers_test

import data.fixtures
import data.mcp.decision
import data.mcp.issuers
import data.mcp.subject

_config := object.union(object.remove(fixtures.config, ["issuers"]), {"issuers": {
	"acme-idp": {"tenants": ["acme"], "roles": ["mcp:viewer"]},
	"partner": {"tenants": ["partner-a", "partner-b"], "roles": ["*"], "scopes": "required"},
}})

_request(issuer, tenant, roles) := fixtures.but(
	fixtures.request(roles, "tools/list"),
	{"subject": {"properties": {"issuer": issuer, "tenant": tenant}}},
)

_codes(issuer, tenant) := {reason.code | some reason in reasons} if {
	reasons := issuers.why with input as _request(issuer, tenant, []) with data.config as _config
}

test_an_issuer_asserts_the_tenants_of_its_row if {
	_codes("acme-idp", "acme") == set()
	_codes("partner", "partner-b") == set()
	_codes("shared-secret", "any") == {"issuer_not_trusted"}
	reasons := issuers.why with input as _request("shared-secret", "any", []) with data.config as fixtures.config
	reasons == set()
}

test_an_issuer_does_not_assert_the_tenant_of_another if {
	_codes("acme-idp", "partner-a") == {"issuer_not_trusted"}
	_codes("partner", "acme") == {"issuer_not_trusted"}
	_codes("partner", "*") == {"issuer_not_trusted"}
}

test_an_issuer_without_a_row_asserts_nothing if {
	_codes("unlisted", "acme") == {"issuer_not_trusted"}
	_codes("", "acme") == {"issuer_not_trusted"}
	roles := subject.roles with input as _request("unlisted", "acme", ["mcp:admin"]) with data.config as _config
	roles == set()
	answer := fixtures.decide(_request("unlisted", "acme", ["mcp:admin"]), _config)
	answer.effect == "deny"
	visible := decision.visible with input as _request("unlisted", "acme", ["mcp:admin"]) with data.config as _config
	visible.tools == []
}

test_roles_that_an_issuer_may_not_assert_grant_nothing if {
	request := _request("acme-idp", "acme", ["mcp:viewer", "mcp:admin"])
	roles := subject.roles with input as request with data.config as _config
	roles == {"mcp:viewer"}
	not subject.may("k8s:restart") with input as request with data.config as _config
	answer := fixtures.decide(object.union(fixtures.call([], "k8s:get_pods", {"namespace": "production"}), {"subject": request.subject}), _config)
	answer.effect == "deny"
}

test_groups_grant_the_roles_that_their_issuer_may_assert if {
	config := object.union(_config, {"groups": {"acme-idp": {"ops": ["mcp:viewer", "mcp:admin"], "other": ["mcp:viewer"]}}})
	request := fixtures.but(_request("acme-idp", "acme", []), {"subject": {"properties": {"groups": ["ops", "unknown"]}}})
	roles := subject.roles with input as request with data.config as config
	roles == {"mcp:viewer"}
	answer := fixtures.decide(request, config)
	answer.effect == "allow"
}

test_groups_of_another_issuer_grant_nothing if {
	config := object.union(_config, {"groups": {"partner": {"ops": ["mcp:viewer"]}}})
	request := fixtures.but(_request("acme-idp", "acme", []), {"subject": {"properties": {"groups": ["ops"]}}})
	roles := subject.roles with input as request with data.config as config
	roles == set()
}
