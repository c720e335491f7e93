package mcp.access_test

import data.fixtures
import data.mcp.decision

# A role that may read Kubernetes, and is named only where `namespaces` says.
_config(namespaces) := object.union(fixtures.config, {
	"roles": {"auditor": {"permissions": ["k8s:get"]}},
	"namespaces": namespaces,
})

_effect(config, place) := answer.effect if {
	answer := decision.decide with input as fixtures.call(["auditor"], "k8s:get_pods", place) with data.config as config
}

_sees(config) if {
	visible := decision.visible with input as fixtures.request(["auditor"], "tools/list") with data.config as config
	"k8s:get_pods" in visible.tools
}

test_a_permission_without_any_place_shows_nothing if {
	config := _config({})
	not _sees(config)
	_effect(config, {"namespace": "development"}) == "deny"
	_effect(config, {"all_namespaces": true}) == "deny"
}

test_a_role_for_the_whole_cluster_only_sees_the_tool_and_may_read_all if {
	config := _config({"cluster_wide": {"roles": ["auditor"]}})
	_sees(config)
	_effect(config, {"all_namespaces": true}) == "allow"
	_effect(config, {"namespace": "development"}) == "deny"
}

test_a_role_for_unlisted_namespaces_only_sees_the_tool_and_may_read_there if {
	config := _config({"unlisted": {"roles": ["auditor"]}})
	_sees(config)
	_effect(config, {"namespace": "kube-system"}) == "allow"
	_effect(config, {"namespace": "development"}) == "deny"
	_effect(config, {}) == "deny"
}

test_a_name_grants_only_what_the_data_says if {
	config := object.union(fixtures.config, {"namespaces": {"grants_to_read": []}})
	request := fixtures.call(["mcp:viewer"], "k8s:get_pods", {"namespace": "development"})
	answer := decision.decide with input as request with data.config as config
	fixtures.codes(answer) == {"not_available"}
}

_namespaces := "enterprise://k8s/{cluster}/namespaces"

_reading(roles) := answer if {
	answer := decision.decide with input as fixtures.read(roles, _namespaces) with data.config as fixtures.config
}

_sees_namespaces(roles) if {
	visible := decision.visible with input as fixtures.request(roles, "resources/list") with data.config as fixtures.config
	_namespaces in visible.resources
}

test_what_is_about_a_whole_cluster_is_for_the_roles_named_for_it if {
	_reading(["mcp:admin"]).effect == "allow"
	_sees_namespaces(["mcp:admin"])
}

test_what_is_about_a_whole_cluster_is_hidden_from_others if {
	every role in ["mcp:viewer", "mcp:operator"] {
		fixtures.codes(_reading([role])) == {"not_available"}
		not _sees_namespaces([role])
	}
}

test_all_namespaces_are_not_for_a_tool_that_does_not_offer_them if {
	only_one := object.union(fixtures.config, {"catalog": {"tools": {"k8s:get_pods": {"scope": {"all_namespaces": null}}}}})
	request := fixtures.call(["mcp:admin"], "k8s:get_pods", {"all_namespaces": true})
	answer := decision.decide with input as request with data.config as only_one
	fixtures.codes(answer) == {"cluster_wide_not_allowed"}
}

# The fixtures' subjects are of the tenant `default`.
_confined(own) := object.union(
	_config({"unlisted": {"roles": ["auditor"]}, "cluster_wide": {"roles": ["auditor"]}}),
	{"tenants": {"served": [], "suspended": [], "namespaces": own}},
)

test_a_confined_tenant_reaches_its_own_namespaces_only if {
	config := _confined({"default": ["shop"]})
	_sees(config)
	_effect(config, {"namespace": "shop"}) == "allow"
	_effect(config, {"namespace": "kube-system"}) == "deny"
	_effect(config, {"all_namespaces": true}) == "deny"
}

test_a_tenants_namespace_still_needs_a_role if {
	config := object.union(_confined({"default": ["shop"]}), {"namespaces": {"unlisted": {"roles": []}}})
	not _sees(config)
	_effect(config, {"namespace": "shop"}) == "deny"
}

test_a_tenant_confined_to_no_namespace_sees_nothing_of_them if {
	config := _confined({"default": []})
	not _sees(config)
	_effect(config, {"namespace": "shop"}) == "deny"
}

test_a_tenant_that_is_not_confined_shares_all_namespaces if {
	config := _confined({"other": ["shop"]})
	_sees(config)
	_effect(config, {"namespace": "kube-system"}) == "allow"
	_effect(config, {"all_namespaces": true}) == "allow"
}
