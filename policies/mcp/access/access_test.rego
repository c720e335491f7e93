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
