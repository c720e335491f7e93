package mcp.access_test

import data.fixtures
import data.mcp.decision

# A role that may read Kubernetes, and is named only where `namespaces` says.
_config(namespaces) := object.union(fixtures.config, {
	"roles": {"auditor": {"permissions": ["k8s:get"]}},
	"namespaces": namespaces,
})

_effect(config, place) := answer.effect if {
	answer := fixtures.decide(fixtures.call(["auditor"], "k8s:get_pods", place), config)
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
	answer := fixtures.decide(request, config)
	fixtures.codes(answer) == {"not_available"}
}

_namespaces := "enterprise://k8s/{cluster}/namespaces"

_reading(roles) := answer if {
	answer := fixtures.decide(fixtures.read(roles, _namespaces), fixtures.config)
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
	answer := fixtures.decide(request, only_one)
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

# Who may read where, as a table of the rows by name and pattern.
_listed(rows) := _config({
	"listed": {name: {"roles": roles} | some name, roles in rows},
	"unlisted": {"roles": ["auditor"]},
})

_may_read(config, namespaces) if {
	every namespace in namespaces {
		_effect(config, {"namespace": namespace}) == "allow"
	}
}

_may_not_read(config, namespaces) if {
	every namespace in namespaces {
		_effect(config, {"namespace": namespace}) == "deny"
	}
}

test_a_pattern_closes_the_namespaces_that_it_matches if {
	config := _listed({"prod-*": ["mcp:admin"], "*-eu": ["mcp:admin"], "a-*-z": ["mcp:admin"]})
	_may_not_read(config, ["prod-eu", "prod-", "shop-eu", "a-b-z", "a--z", "a-b-c-z"])
	_may_read(config, ["prod", "preprod-x", "eu", "eu-shop", "a-z", "a-b"])
}

test_a_pattern_opens_the_namespaces_that_it_matches if {
	config := object.union(_listed({"team-a-*": ["auditor"]}), {"namespaces": {"unlisted": {"roles": []}}})
	_sees(config)
	_may_read(config, ["team-a-web", "team-a-x-1"])
	_may_not_read(config, ["team-a", "team-b-web", "xteam-a-web"])
}

test_a_name_goes_before_the_patterns_that_match_it if {
	config := _listed({"prod-*": ["mcp:admin"], "prod-docs": ["auditor"]})
	_may_read(config, ["prod-docs"])
	_may_not_read(config, ["prod-docs-2", "prod-web"])
}

test_of_several_patterns_the_longest_counts if {
	config := _listed({"prod-*": ["mcp:admin"], "prod-docs-*": ["auditor"], "prod-docs-secret-*": ["mcp:admin"], "*-x": ["auditor"]})
	_may_read(config, ["prod-docs-x", "x-x"])
	_may_not_read(config, ["prod-x-y", "prod-docs-secret-x"])
}

test_what_cannot_be_a_namespace_is_in_none if {
	config := _listed({"team-*": ["auditor"]})
	_may_not_read(config, [
		"team-a/../kube-system",
		"team-a.b",
		"team-*",
		"*",
		"team-A",
		"team-a ",
		"kube_system",
		"",
		null,
		7,
	])
}

test_a_tenant_may_be_confined_to_a_pattern if {
	config := _confined({"default": ["acme-*", "shop"]})
	_sees(config)
	_may_read(config, ["acme-web", "acme-x-y", "shop"])
	_may_not_read(config, ["acme", "emca-web", "shop-2", "kube-system", "acme-*"])
	_effect(config, {"all_namespaces": true}) == "deny"
}

test_a_tenant_confined_to_a_pattern_still_needs_a_role if {
	rows := {
		"listed": {"acme-*": {"roles": ["mcp:admin"]}, "*-docs": {"roles": ["auditor"]}},
		"unlisted": {"roles": ["auditor"]},
	}
	config := object.union(_confined({"default": ["acme-*"]}), {"namespaces": rows})
	not _sees(object.union(config, {"namespaces": {"listed": {"*-docs": {"roles": []}}}}))
	_may_not_read(config, ["acme-web"])

	shorter := object.union(_confined({"default": ["ac*"]}), {"namespaces": rows})
	_sees(shorter)
	_may_read(shorter, ["ac-docs", "acm"])
	_may_not_read(shorter, ["acme-docs-2", "docs"])
}

_named(config) := tool.namespaces if {
	entitlements := decision.entitlements with input as fixtures.request(["auditor"], "resources/read") with data.config as config
	some tool in entitlements.tools
	tool.id == "k8s:get_pods"
}

test_entitlements_hold_patterns_as_patterns if {
	config := _listed({"prod-*": ["mcp:admin"], "team-*": ["auditor"], "docs": ["auditor"]})
	_named(config) == ["docs", "team-*"]
}

test_a_confined_tenant_stands_in_what_its_patterns_have_in_common_with_the_list if {
	rows := {"team-*": ["auditor"], "*-web": ["auditor"], "docs": ["auditor"], "acme-b": ["mcp:admin"], "acme-*-db": ["mcp:admin"]}
	config := object.union(_listed(rows), {
		"tenants": {"served": [], "suspended": [], "namespaces": {"default": ["acme-*", "team-a-*", "acme-b"]}},
		"namespaces": {"unlisted": {"roles": []}},
	})
	_named(config) == ["acme-*-web", "acme-web", "team-a-*", "team-a-*-web", "team-a-web"]
	_may_read(config, ["acme-web", "acme-x-web", "team-a-x", "team-a-web"])
	_may_not_read(config, ["acme-b", "acme-x", "acme-x-db", "team-b", "docs", "x-web"])
}
