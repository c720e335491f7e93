package mcp.decision_test

import data.fixtures
import data.mcp.decision

_viewer := ["mcp:viewer"]

_operator := ["mcp:operator"]

_admin := ["mcp:admin"]

_decide(request) := _decide_with(request, {})

_decide_with(request, changes) := fixtures.decide(request, object.union(fixtures.config, changes))

_effect(request) := _decide(request).effect

_codes(request) := fixtures.codes(_decide(request))

test_nothing_is_visible_to_a_subject_that_is_not_served if {
	suspended := object.union(fixtures.config, {"tenants": {"suspended": ["default"]}})
	visible := decision.visible with input as fixtures.request(_admin, "tools/list") with data.config as suspended
	visible == {"version": 2, "revision": "unversioned", "tools": [], "resources": [], "prompts": []}
}

test_an_empty_input_is_refused_with_reasons if {
	answer := _decide({})
	answer.effect == "deny"
	{"unsupported_version", "subject_not_identified", "method_unknown", "audit_unavailable"} - fixtures.codes(answer) == set()
}

test_an_empty_input_is_not_admitted_and_sees_nothing if {
	authorized := decision.authorize with input as {} with data.config as fixtures.config
	authorized.effect == "deny"
	visible := decision.visible with input as {} with data.config as fixtures.config
	visible.tools == []
}

test_broken_policy_data_is_a_refusal if {
	broken := object.remove(fixtures.config, ["obligations"])
	request := fixtures.call(_viewer, "monitoring:get_alerts", {})
	answer := fixtures.decide(request, broken)
	answer.effect == "deny"
	fixtures.codes(answer) == {"undecided"}
}

test_no_policy_data_at_all_is_a_refusal if {
	request := fixtures.call(_admin, "monitoring:get_alerts", {})
	answer := fixtures.decide(request, {})
	answer.effect == "deny"
}

test_an_unknown_tool_and_a_hidden_tool_get_the_same_answer if {
	hidden := _decide(fixtures.call(_viewer, "k8s:restart_deployment", {"namespace": "production"}))
	absent := _decide(fixtures.call(_viewer, "k8s:no_such_tool", {}))
	hidden == absent
	fixtures.codes(hidden) == {"not_available"}
}

test_a_hidden_tool_is_not_betrayed_by_the_stores_being_down if {
	down := {"context": {"counters": "down", "audit": "down"}}
	hidden := _decide(fixtures.but(fixtures.call(_viewer, "k8s:scale_deployment", {"namespace": "staging"}), down))
	absent := _decide(fixtures.but(fixtures.call(_viewer, "k8s:no_such_tool", {"namespace": "staging"}), down))
	hidden == absent
}

test_a_hidden_resource_is_answered_like_an_absent_one if {
	hidden := _decide(fixtures.read(["mcp:unheard_of"], "enterprise://cmdb/assets"))
	absent := _decide(fixtures.read(["mcp:unheard_of"], "enterprise://no/such"))
	hidden == absent
	fixtures.codes(hidden) == {"not_available"}
}

test_a_forbidden_namespace_is_answered_like_an_absent_one if {
	forbidden := _decide(fixtures.call(_operator, "k8s:get_pods", {"namespace": "production"}))
	absent := _decide(fixtures.call(_operator, "k8s:get_pods", {"namespace": "no-such-namespace"}))
	forbidden == absent
	fixtures.codes(forbidden) == {"namespace_not_available"}
}

test_a_namespaced_tool_needs_a_namespace if {
	every place in ["none", "empty", "null", "malformed"] {
		request := fixtures.call(_admin, "k8s:get_pods", fixtures.places[place])
		_effect(request) == "deny"
	}
}

test_cluster_wide_reading_is_refused_to_operators_with_its_own_reason if {
	_codes(fixtures.call(_operator, "k8s:get_pods", {"all_namespaces": true})) == {"cluster_wide_not_allowed"}
}

test_naming_a_namespace_beside_all_namespaces_does_not_help if {
	_effect(fixtures.call(_viewer, "k8s:get_pods", fixtures.places.both)) == "deny"
}

test_nobody_may_change_all_namespaces_at_once if {
	_codes(fixtures.call(_admin, "k8s:scale_deployment", {"all_namespaces": true})) == {"cluster_wide_not_allowed"}
}

test_a_tool_without_a_place_is_refused_one if {
	_effect(fixtures.call(_admin, "cmdb:query_assets", {"namespace": "production"})) == "deny"
}

test_a_role_named_for_a_namespace_reads_there_without_k8s_get if {
	_effect(fixtures.call(_viewer, "k8s:get_pods", {"namespace": "development"})) == "allow"
	_effect(fixtures.call(_viewer, "k8s:get_pods", {"namespace": "staging"})) == "deny"
}

test_a_role_named_for_a_namespace_changes_nothing_there_without_the_permission if {
	_effect(fixtures.call(_viewer, "k8s:scale_deployment", {"namespace": "development"})) == "deny"
}

test_operator_cannot_scale_in_production if {
	_codes(fixtures.call(_operator, "k8s:scale_deployment", {"namespace": "production"})) == {"namespace_not_available"}
}

test_a_resource_of_another_tenant_is_not_available if {
	own := fixtures.but(fixtures.read(_viewer, "enterprise://cmdb/assets"), {"resource": {"properties": {"tenant": "default"}}})
	foreign := fixtures.but(own, {"resource": {"properties": {"tenant": "other"}}})
	_effect(own) == "allow"
	_codes(foreign) == {"not_available"}
}

test_a_method_for_tools_is_not_for_resources if {
	request := fixtures.but(
		fixtures.read(_admin, "enterprise://cmdb/assets"),
		{"action": {"name": "tools/call"}},
	)
	_codes(request) == {"not_available"}
}

test_completion_is_for_things_that_could_be_used if {
	prompt := {"resource": {"type": "prompt", "id": "incident"}}
	request := fixtures.but(fixtures.request(_viewer, "completion/complete"), prompt)
	_effect(request) == "allow"
	absent := {"resource": {"type": "prompt", "id": "absent"}}
	_effect(fixtures.but(request, absent)) == "deny"
}

test_names_are_completed_from_what_a_tool_lists_where_it_may_be_called if {
	of_pods := {"resource": {"type": "tool", "id": "k8s:get_pods", "properties": {"namespace": "development"}}}
	request := fixtures.but(fixtures.request(_viewer, "completion/complete"), of_pods)
	answer := _decide(request)
	answer.effect == "allow"
	[charge.id | some charge in answer.charges] == ["method:completion/complete"]
	elsewhere := {"resource": {"properties": {"namespace": "production"}}}
	_codes(fixtures.but(request, elsewhere)) == {"namespace_not_available"}
}

test_the_revision_of_the_bundle_is_in_every_answer if {
	request := fixtures.call(_viewer, "monitoring:get_alerts", {})
	bundles := {"mcp": {"manifest": {"revision": "abc123"}}}
	answers := {name: answer |
		answer := decision[name] with input as request with data.config as fixtures.config with data.system.bundles as bundles
		name in ["authorize", "visible", "entitlements", "canary"]
	}
	count(answers) == 4
	every answer in answers {
		answer.revision == "abc123"
		answer.version == 2
	}
}

test_an_allowed_call_carries_charges_and_obligations if {
	answer := _decide(fixtures.call(_admin, "k8s:get_pod_logs", {"namespace": "production"}))
	answer.charges == [
		{"id": "global", "key": "global", "limit": 1000, "window_s": 3600, "cost": 1},
		{"id": "user", "key": "user:default:alice", "limit": 100, "window_s": 3600, "cost": 1},
	]
	answer.obligations == [
		{"type": "timeout", "seconds": 30},
		{"type": "max_items", "value": 500},
		{"type": "redact", "fields": ["password", "token"]},
	]
}

test_a_refused_call_is_not_charged if {
	answer := _decide(fixtures.call(_viewer, "k8s:restart_deployment", {"namespace": "production"}))
	answer.charges == []
	answer.obligations == []
}

test_every_reason_has_code_message_rule_and_solution if {
	answer := _decide({})
	every reason in answer.reasons {
		object.keys(reason) == {"code", "message", "rule", "solution"}
		every text in reason {
			count(text) > 0
		}
	}
}

test_the_rule_of_a_reason_is_its_package_and_code if {
	answer := _decide(fixtures.call(_viewer, "absent", {}))
	answer.reasons[0].rule == "mcp.access.not_available"
}

_counts(global, user) := [
	{
		"charge": {"id": "global", "key": "global", "limit": 1000, "window_s": 3600, "cost": 1},
		"count": global,
		"reset_ms": 1000,
	},
	{
		"charge": {"id": "user", "key": "user:default:alice", "limit": 100, "window_s": 3600, "cost": 1},
		"count": user,
		"reset_ms": 3599000,
	},
]

_authorize(request, counts) := answer if {
	answer := decision.authorize with input as object.union(request, {"counts": counts}) with data.config as fixtures.config
}

_alerts := fixtures.call(_viewer, "monitoring:get_alerts", {})

test_a_call_within_the_limits_is_admitted if {
	answer := _authorize(_alerts, _counts(1000, 5))
	answer.effect == "allow"
	answer.reasons == []
	answer.retry_after_ms == 0
	answer.quota == [
		{"id": "global", "limit": 1000, "remaining": 0, "window_s": 3600, "reset_ms": 1000},
		{"id": "user", "limit": 100, "remaining": 95, "window_s": 3600, "reset_ms": 3599000},
	]
}

test_the_last_call_of_the_limit_is_admitted_and_the_next_is_not if {
	_authorize(_alerts, _counts(1, 100)).effect == "allow"
	answer := _authorize(_alerts, _counts(1, 101))
	answer.effect == "limited"
	answer.retry_after_ms == 3599000
	fixtures.codes(answer) == {"rate_limited"}
	answer.reasons[0].message == "the limit of 100 calls in 3600 seconds is used up (user)"
	answer.quota[1].remaining == 0
}

test_the_longest_wait_of_all_used_up_limits_is_given if {
	answer := _authorize(_alerts, _counts(1001, 101))
	answer.retry_after_ms == 3599000
	count(answer.reasons) == 2
}

_charged_again(answer) if {
	answer.effect == "count"
	[charge.id | some charge in answer.charges] == ["global", "user"]
	answer.obligations == []
	answer.quota == []
}

test_a_call_without_counts_is_to_be_charged_first if {
	_charged_again(_authorize(_alerts, []))
	answer := decision.authorize with input as _alerts with data.config as fixtures.config
	_charged_again(answer)
}

test_a_charge_without_its_count_is_to_be_charged_again if {
	_charged_again(_authorize(_alerts, [_counts(1, 1)[0]]))
	_charged_again(_authorize(_alerts, [_counts(1001, 1)[0]]))
}

test_a_count_of_another_window_is_no_count_of_this_call if {
	every change in [{"key": "user:default:bob"}, {"id": "tenant"}, {"limit": 1000}, {"window_s": 60}, {"cost": 2}] {
		counts := [_counts(1, 1)[0], object.union(_counts(1, 1)[1], {"charge": change})]
		_charged_again(_authorize(_alerts, counts))
	}
}

test_a_count_too_many_is_no_count_of_this_call if {
	_charged_again(_authorize(_alerts, array.concat(_counts(1, 1), [_counts(1, 1)[1]])))
}

test_counts_in_another_order_are_no_counts_of_this_call if {
	_charged_again(_authorize(_alerts, array.reverse(_counts(1, 1))))
}

test_a_count_that_is_no_number_is_refused if {
	every malformed in ["1", null, true, -1, [1]] {
		not _authorize(_alerts, _counts(malformed, 1)).effect in {"allow", "count"}
	}
}

test_counts_that_are_no_list_are_refused if {
	every malformed in ["x", {}, 1, null, ["x"]] {
		_authorize(_alerts, malformed).effect != "allow"
	}
}

test_counts_of_a_call_that_is_not_charged_are_to_be_given_back if {
	request := object.union(fixtures.request(_viewer, "tools/list"), {"counts": _counts(1, 1)})
	answer := decision.authorize with input as request with data.config as fixtures.config
	answer.effect == "count"
	answer.charges == []
}

test_a_refused_request_is_not_admitted_whatever_the_counts if {
	answer := _authorize(fixtures.call(_viewer, "absent", {}), _counts(1, 1))
	answer.effect == "deny"
	fixtures.codes(answer) == {"not_available"}
	answer.quota == []
}

test_a_request_that_is_not_charged_is_admitted_without_counts if {
	answer := decision.authorize with input as fixtures.request(_viewer, "tools/list") with data.config as fixtures.config
	answer.effect == "allow"
	answer.quota == []
}

test_a_deny_rule_of_an_author_denies_and_gives_its_reasons if {
	added := {"code": "added", "message": "x", "rule": "mcp.new_package.added", "solution": "x"}
	answer := _decide(_alerts) with data.mcp.new_package.deny as {added}
	answer.effect == "deny"
	answer.reasons == [added]
}

test_the_canary_sings_with_the_shipped_data if {
	answer := decision.canary with data.config as fixtures.config
	answer == {
		"version": 2,
		"allow_ok": true,
		"deny_ok": true,
		"scopes": ["mcp:admin", "mcp:read", "mcp:write"],
		"initial_scope": "mcp:read",
		"revision": "unversioned",
	}
}

test_the_canary_calls_as_a_subject_of_any_issuer if {
	company := {"tenants": ["acme"], "roles": ["*"], "scopes": "required"}
	config := object.union(
		object.remove(fixtures.config, ["issuers"]),
		{"issuers": {"company": company, "other": {"tenants": [], "roles": []}}},
	)
	answer := decision.canary with data.config as config
	answer.allow_ok
	answer.deny_ok
}

test_the_canary_fails_if_no_issuer_may_assert_anything if {
	config := object.union(object.remove(fixtures.config, ["issuers"]), {"issuers": {}})
	answer := decision.canary with data.config as config
	not answer.allow_ok
}

test_the_canary_sings_behind_an_allowlist_and_a_list_of_tenants if {
	config := object.union(fixtures.config, {
		"network": {"allow": ["10.1.0.0/16"]},
		"tenants": {"served": ["a", "b"], "suspended": ["a"]},
	})
	answer := decision.canary with data.config as config
	answer.allow_ok
	answer.deny_ok
}

test_the_canary_is_silent_when_no_role_may_list_tools if {
	config := json.patch(fixtures.config, [{"op": "replace", "path": "/roles", "value": {"mcp:viewer": {"permissions": []}}}])
	answer := decision.canary with data.config as config
	not answer.allow_ok
}

test_the_canary_is_silent_when_no_role_may_call_a_tool if {
	config := json.patch(fixtures.config, [
		{"op": "replace", "path": "/roles", "value": {"mcp:viewer": {"permissions": ["tools:read"]}}},
		{"op": "replace", "path": "/methods/tools~1call/permission", "value": "tools:execute"},
	])
	answer := decision.canary with data.config as config
	not answer.allow_ok
}

test_the_canary_is_silent_when_calls_cannot_be_decided if {
	answer := decision.canary with data.config as object.remove(fixtures.config, ["limits"])
	not answer.allow_ok
}

test_the_canary_is_silent_when_absent_tools_are_not_refused_as_such if {
	config := object.union(fixtures.config, {"methods": {"tools/call": {"kinds": []}}})
	answer := decision.canary with data.config as config
	not answer.deny_ok
}

test_a_changed_limit_is_used_by_the_next_decision if {
	answer := _decide_with(_alerts, {"limits": {"user": {"limit": 3}}})
	answer.charges[1].limit == 3
}

_entitlements(roles, counts) := answer if {
	request := object.union(fixtures.read(roles, "enterprise://policy/me"), {"counts": counts})
	answer := decision.entitlements with input as request with data.config as fixtures.config
}

test_entitlements_name_the_places_and_limits_of_each_tool if {
	tools := {tool.id: object.remove(tool, ["id"]) | some tool in _entitlements(_operator, []).tools}
	tools["k8s:scale_deployment"] == {
		"namespaces": ["development", "staging"],
		"other_namespaces": false,
		"all_namespaces": false,
		"limits": ["global", "user", "tool:k8s:scale"],
	}
	tools["cmdb:query_assets"].namespaces == []
	not tools["k8s:restart_deployment"]
}

test_only_roles_that_are_named_for_them_stand_in_unlisted_and_all_namespaces if {
	some tool in _entitlements(_admin, []).tools
	tool.id == "k8s:get_pods"
	tool.other_namespaces
	tool.all_namespaces
}

test_entitlements_without_counts_list_the_windows_to_count if {
	answer := _entitlements(_operator, [])
	answer.quota == []
	[charge.id | some charge in answer.charges] == ["global", "user", "tool:k8s:scale", "tool:monitoring:create_dashboard"]
	answer.roles == ["mcp:operator"]
}

test_what_is_left_of_each_limit_is_computed_from_the_counts if {
	_entitlements(_viewer, _counts(0, 101)).quota == [
		{"id": "global", "limit": 1000, "remaining": 1000, "window_s": 3600, "reset_ms": 1000},
		{"id": "user", "limit": 100, "remaining": 0, "window_s": 3600, "reset_ms": 3599000},
	]
}

test_a_subject_that_is_not_served_stands_nowhere if {
	suspended := object.union(fixtures.config, {"tenants": {"suspended": ["default"]}})
	answer := decision.entitlements with input as fixtures.request(_admin, "resources/read") with data.config as suspended
	answer.tools == []
	answer.resources == []
	answer.prompts == []
}
