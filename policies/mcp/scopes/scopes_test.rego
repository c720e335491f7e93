package mcp.scopes_test

import data.fixtures
import data.mcp.decision
import data.mcp.scopes

_with_scopes(request, given) := fixtures.but(request, {"subject": {"properties": {"scopes": given}}})

_scale := fixtures.call(["mcp:admin"], "k8s:scale_deployment", {"namespace": "staging"})

_decide(request, given) := answer if {
	answer := fixtures.decide(_with_scopes(request, given), fixtures.config)
}

_required := object.union(fixtures.config, {"issuers": {"shared-secret": {"scopes": "required"}}})

test_a_token_without_scopes_is_not_limited if {
	_decide(_scale, []).effect == "allow"
	_decide(_scale, ["openid", "profile"]).effect == "allow"
}

test_a_scope_is_a_ceiling if {
	_decide(_scale, ["mcp:read"]).effect == "deny"
	_decide(_scale, ["mcp:write"]).effect == "allow"
	_decide(_scale, ["mcp:read", "mcp:admin"]).effect == "allow"
}

test_a_scope_grants_nothing if {
	request := fixtures.call(["mcp:viewer"], "k8s:scale_deployment", {"namespace": "staging"})
	answer := _decide(request, ["mcp:admin"])
	answer.effect == "deny"
	answer.missing_scope == ""
	fixtures.codes(answer) == {"not_available"}
}

test_a_scope_that_the_data_does_not_define_allows_nothing if {
	_decide(_scale, ["mcp:unheard-of"]).effect == "deny"
	_decide(fixtures.request(["mcp:admin"], "tools/list"), ["mcp:unheard-of"]).effect == "deny"
}

test_a_scope_of_the_data_limits_whatever_its_name_is if {
	config := object.union(fixtures.config, {"scopes": {"look": {"permissions": ["tools:read"]}}})
	answer := fixtures.decide(_with_scopes(_scale, ["look"]), config)
	answer.missing_scope == "mcp:write"
}

test_the_least_scope_that_is_missing_is_named_alone if {
	answer := _decide(_scale, ["mcp:read"])
	answer.missing_scope == "mcp:write"
	fixtures.codes(answer) == {"scope_missing"}
	some reason in answer.reasons
	reason.message == "the token lacks the scope mcp:write"
	_decide(fixtures.call(["mcp:admin"], "k8s:restart_deployment", {"namespace": "staging"}), ["mcp:write"]).missing_scope == "mcp:admin"
}

test_no_scope_is_named_if_something_else_is_missing_too if {
	suspended := object.union(fixtures.config, {"tenants": {"served": [], "suspended": ["default"]}})
	answer := fixtures.decide(_with_scopes(_scale, ["mcp:read"]), suspended)
	answer.missing_scope == ""
	not "scope_missing" in fixtures.codes(answer)
	_decide(fixtures.call(["mcp:admin"], "k8s:absent", {}), ["mcp:read"]).missing_scope == ""
}

test_a_role_of_a_namespace_reads_there_within_the_scopes if {
	request := fixtures.call(["mcp:viewer"], "k8s:get_pods", {"namespace": "development"})
	narrow := object.union(fixtures.config, {"scopes": {"mcp:read": {"permissions": ["tools:read"]}}})
	fixtures.decide(_with_scopes(request, ["mcp:read"]), narrow).effect == "deny"
	_decide(request, ["mcp:read"]).effect == "allow"
}

test_an_issuer_can_require_scopes if {
	answer := fixtures.decide(_with_scopes(_scale, []), _required)
	answer.effect == "deny"
	answer.missing_scope == "mcp:write"
	fixtures.decide(_with_scopes(_scale, ["mcp:write"]), _required).effect == "allow"
}

test_the_least_scope_for_a_permission if {
	scopes.least_for("tools:read") == "mcp:read" with data.config as fixtures.config
	scopes.least_for("k8s:restart") == "mcp:admin" with data.config as fixtures.config
	not scopes.least_for("tools:read") with data.config as {"scopes": {}}
}

test_the_canary_tells_the_scopes if {
	canary := decision.canary with data.config as fixtures.config
	canary.scopes == ["mcp:admin", "mcp:read", "mcp:write"]
	canary.initial_scope == "mcp:read"
	none := decision.canary with data.config as object.remove(fixtures.config, ["scopes"])
	none.initial_scope == ""
}
