# Properties: what holds for all roles, tools and places. Kept apart, because measuring coverage makes them slow.
package mcp.properties_test

import data.fixtures
import data.mcp.decision

_decide(request) := _decide_by(request, fixtures.config)

# The first answer, before anything is charged: `count` says that the request is allowed so far.
_decide_by(request, config) := answer if {
	answer := decision.authorize with input as request with data.config as config
}

_effect(request) := _effects[_decide(request).effect]

_effects := {"allow": "allow", "count": "allow", "deny": "deny"}

# R8: what each role may call where. `everywhere` stands for all namespaces at once, `none` for no place.
_table := {
	"monitoring:query_metrics": _looking,
	"monitoring:get_alerts": _looking,
	"monitoring:create_dashboard": {"none": {"mcp:operator", "mcp:admin"}},
	"cmdb:query_assets": _looking,
	"cmdb:get_service_topology": _looking,
	"cmdb:update_asset_status": {"none": {"mcp:operator", "mcp:admin"}},
	"cmdb:get_change_records": _looking,
	"monitoring:health_check": _reading,
	"k8s:get_pods": _reading,
	"k8s:get_deployments": _reading,
	"k8s:get_pod_logs": _reading,
	"k8s:scale_deployment": {
		"production": {"mcp:admin"},
		"staging": {"mcp:operator", "mcp:admin"},
		"development": {"mcp:operator", "mcp:admin"},
		"kube-system": {"mcp:admin"},
	},
	"k8s:restart_deployment": {
		"production": {"mcp:admin"},
		"staging": {"mcp:admin"},
		"development": {"mcp:admin"},
		"kube-system": {"mcp:admin"},
	},
}

_looking := {"none": {"mcp:viewer", "mcp:operator", "mcp:admin"}}

_reading := {
	"production": {"mcp:admin"},
	"staging": {"mcp:operator", "mcp:admin"},
	"development": {"mcp:viewer", "mcp:operator", "mcp:admin"},
	"kube-system": {"mcp:admin"},
	"everywhere": {"mcp:admin"},
}

_all_roles := ["mcp:viewer", "mcp:operator", "mcp:admin", "mcp:unheard_of"]

# Every set of the shipped roles, and a role that the data does not know.
_role_sets := {roles |
	some number in numbers.range(0, 7)
	roles := {role | some i, role in ["mcp:viewer", "mcp:operator", "mcp:admin"]; bits.and(number, bits.lsh(1, i)) != 0}
} | {{"mcp:unheard_of"}}

test_each_role_may_call_exactly_what_the_table_says_everywhere if {
	every tool, _ in fixtures.catalog.tools {
		every place in ["none", "everywhere", "production", "staging", "development", "kube-system"] {
			every role in _all_roles {
				expected := role in object.get(_table, [tool, place], set())
				answer := _effect(fixtures.call([role], tool, fixtures.places[place]))
				answer == {true: "allow", false: "deny"}[expected]
			}
		}
	}
}

# An asset has no place: who may look at the CMDB may look at any asset of the tenant, who may change it, at any.
test_who_may_look_at_assets_and_who_may_change_them_is_the_same_for_each_asset if {
	every tool, roles in {
		"cmdb:query_assets": {"mcp:viewer", "mcp:operator", "mcp:admin"},
		"cmdb:get_service_topology": {"mcp:viewer", "mcp:operator", "mcp:admin"},
		"cmdb:get_change_records": {"mcp:viewer", "mcp:operator", "mcp:admin"},
		"cmdb:update_asset_status": {"mcp:operator", "mcp:admin"},
	} {
		every role in _all_roles {
			every asset in ["db1", "", "../x", null] {
				answer := _effect(fixtures.call([role], tool, {"asset": asset}))
				answer == {true: "allow", false: "deny"}[role in roles]
			}
		}
	}
}

test_a_viewer_learns_of_a_change_to_assets_no_more_than_of_a_tool_that_is_not_there if {
	every role in ["mcp:viewer", "mcp:unheard_of"] {
		hidden := _decide(fixtures.call([role], "cmdb:update_asset_status", {"asset": "db1"}))
		absent := _decide(fixtures.call([role], "cmdb:absent", {"asset": "db1"}))
		hidden.effect == "deny"
		hidden.reasons == absent.reasons
	}
}

test_several_roles_may_do_what_any_of_them_may if {
	every tool, _ in fixtures.catalog.tools {
		every roles in _role_sets {
			every place in ["none", "everywhere", "staging", "development"] {
				allowed := object.get(_table, [tool, place], set())
				expected := count(allowed & roles) > 0
				answer := _effect(fixtures.call(roles, tool, fixtures.places[place]))
				answer == {true: "allow", false: "deny"}[expected]
			}
		}
	}
}

test_visible_tools_are_those_for_which_some_arguments_could_be_allowed if {
	every roles in _role_sets {
		visible := decision.visible with input as fixtures.request(roles, "tools/list") with data.config as fixtures.config
		callable := {tool |
			some tool, _ in fixtures.catalog.tools
			some place in fixtures.places
			_effect(fixtures.call(roles, tool, place)) == "allow"
		}
		{tool | some tool in visible.tools} == callable
		visible.tools == sort(visible.tools)
	}
}

test_visible_resources_and_prompts_are_those_that_could_be_read if {
	every roles in _role_sets {
		visible := decision.visible with input as fixtures.request(roles, "resources/list") with data.config as fixtures.config
		{uri | some uri in visible.resources} == {uri |
			some uri, _ in fixtures.catalog.resources
			_effect(fixtures.read(roles, uri)) == "allow"
		}
		{name | some name in visible.prompts} == {name |
			some name, _ in fixtures.catalog.prompts
			_effect(fixtures.but(
				fixtures.request(roles, "prompts/get"),
				{"resource": {"type": "prompt", "id": name}},
			)) == "allow"
		}
	}
}

test_a_refusal_has_reasons_and_an_allowance_has_none if {
	every roles in _role_sets {
		every tool in {"k8s:get_pods", "k8s:scale_deployment", "cmdb:query_assets", "cmdb:update_asset_status", "k8s:absent"} {
			every place in fixtures.places {
				answer := _decide(fixtures.call(roles, tool, place))
				_effects[answer.effect] == {true: "allow", false: "deny"}[answer.reasons == []]
			}
		}
	}
}

# What an author's rule would say, and a request and counts that nothing else refuses.
_added := {{"code": "added", "message": "x", "rule": "mcp.added", "solution": "x"}}

_fine := fixtures.call(["mcp:admin"], "k8s:scale_deployment", {"namespace": "staging"})

_refuses(answer) if {
	answer.effect == "deny"
	fixtures.codes(answer) == {"added"}
}

test_a_deny_that_is_added_to_a_package_denies_whatever_is_ok if {
	_effect(_fine) == "allow"
	_refuses(_decide(_fine)) with data.mcp.subject.deny as _added
	_refuses(_decide(_fine)) with data.mcp.tenants.deny as _added
	_refuses(_decide(_fine)) with data.mcp.network.deny as _added
	_refuses(_decide(_fine)) with data.mcp.methods.deny as _added
	_refuses(_decide(_fine)) with data.mcp.access.deny as _added
	_refuses(_decide(_fine)) with data.mcp.stores.deny as _added
	_refuses(_decide(_fine)) with data.mcp.limits.deny as _added
	_refuses(_decide(_fine)) with data.mcp.new_package.deny as _added
}

test_a_deny_that_is_not_a_set_of_reasons_denies_as_well if {
	every malformed in [true, false, "x", [], {"a": 1}, {"x"}] {
		answer := _decide(_fine) with data.mcp.new_package.deny as malformed
		answer.effect == "deny"
	}
}

test_what_is_limited_by_an_added_rule_is_limited if {
	answer := fixtures.decide(_fine, fixtures.config) with data.mcp.limits.limited as _added
	answer.effect == "limited"
	fixtures.codes(answer) == {"added"}
}

_sees_nothing if {
	visible := decision.visible with input as fixtures.request(["mcp:admin"], "tools/list") with data.config as fixtures.config
	array.concat(array.concat(visible.tools, visible.resources), visible.prompts) == []
}

test_a_subject_that_an_added_rule_denies_sees_nothing if {
	not _sees_nothing
	_sees_nothing with data.mcp.subject.deny as _added
	_sees_nothing with data.mcp.tenants.deny as _added
	_sees_nothing with data.mcp.network.deny as _added
}

test_a_tool_stands_exactly_in_the_places_where_a_call_is_allowed if {
	every roles in _role_sets {
		entitlements := decision.entitlements with input as fixtures.request(roles, "resources/read") with data.config as fixtures.config
		every tool in entitlements.tools {
			every namespace, _ in fixtures.config.namespaces.listed {
				expected := namespace in tool.namespaces
				answer := _effect(fixtures.call(roles, tool.id, {"namespace": namespace}))
				answer == {true: "allow", false: "deny"}[expected]
			}
			elsewhere := _effect(fixtures.call(roles, tool.id, {"namespace": "kube-system"}))
			elsewhere == {true: "allow", false: "deny"}[tool.other_namespaces]
		}
	}
}

test_entitlements_name_the_limits_that_calls_are_charged_to if {
	every roles in _role_sets {
		entitlements := decision.entitlements with input as fixtures.request(roles, "resources/read") with data.config as fixtures.config
		windows := {charge | some charge in entitlements.charges}
		every tool in entitlements.tools {
			charged := {charge |
				some place in fixtures.places
				some charge in _decide(fixtures.call(roles, tool.id, place)).charges
			}
			{charge.id | some charge in charged} == {id | some id in tool.limits}
			charged - windows == set()
		}
	}
}

# A tenant confined to one listed and one unlisted namespace: it sees a tool exactly where some place lets it in.
_confined := object.union(
	fixtures.config,
	{"tenants": {"served": [], "suspended": [], "namespaces": {"default": ["staging", "shop"]}}},
)

test_a_confined_tenant_sees_a_tool_exactly_if_it_may_call_it_somewhere if {
	places := [
		{},
		{"all_namespaces": true},
		{"namespace": "staging"},
		{"namespace": "shop"},
		{"namespace": "production"},
		{"namespace": "kube-system"},
	]
	every roles in _role_sets {
		visible := decision.visible with input as fixtures.request(roles, "tools/list") with data.config as _confined
		callable := {tool |
			some tool, _ in fixtures.catalog.tools
			some place in places
			answer := _decide_by(fixtures.call(roles, tool, place), _confined)
			_effects[answer.effect] == "allow"
		}
		{tool | some tool in visible.tools} == callable
	}
}

# Patterns of the list and of the tenant, and namespaces of every kind that they make.
_rows := {
	"prod-*": {"roles": ["mcp:admin"]},
	"prod-eu": {"roles": ["mcp:viewer"]},
	"*-eu": {"roles": ["mcp:operator"]},
	"team-a-*": {"roles": ["mcp:operator", "mcp:viewer"]},
}

_patterned(row, own) := object.union(object.remove(fixtures.config, ["namespaces"]), {
	"namespaces": {
		"listed": object.remove(_rows, [row]),
		"unlisted": {"roles": ["mcp:operator"]},
		"cluster_wide": {"roles": ["mcp:admin"]},
		"grants_to_read": ["k8s:get"],
	},
	"tenants": {"served": [], "suspended": [], "namespaces": own},
})

_some_names := ["prod-x", "prod-eu", "prod-x-eu", "x-eu", "team-a-x", "team-a-x-eu", "team-b", "shop", "kube-system"]

_told(tool, _) if tool.other_namespaces

_told(tool, namespace) if {
	some named in tool.namespaces
	glob.match(named, [], namespace)
}

_fits(config, role, id) if {
	entitlements := decision.entitlements with input as fixtures.request([role], "resources/read") with data.config as config
	tools := [tool | some tool in entitlements.tools; tool.id == id]
	told := {name | some tool in tools; some name in _some_names; _told(tool, name)}
	named := {name | some tool in tools; some name in tool.namespaces; name in _some_names}
	callable := {name |
		some name in _some_names
		answer := _decide_by(fixtures.call([role], id, {"namespace": name}), config)
		_effects[answer.effect] == "allow"
	}
	callable - told == set()
	named - callable == set()
	min([count(told), 1]) == min([count(callable), 1])
}

test_entitlements_hold_a_pattern_exactly_if_a_matching_namespace_is_allowed if {
	every row in ["none", "prod-*", "prod-eu"] {
		every own in [{}, {"default": ["prod-*"]}, {"default": ["*-eu", "shop"]}, {"default": ["team-*"]}, {"default": ["*"]}] {
			every role in _all_roles {
				config := _patterned(row, own)
				_fits(config, role, "k8s:get_pods")
				_fits(config, role, "k8s:scale_deployment")
			}
		}
	}
}

# Ceilings: scopes, an agent, and an issuer that may assert one role, each with every set of roles.
_ceilings := {
	"scope": {"subject": {"properties": {"scopes": ["mcp:read"]}}},
	"scopes": {"subject": {"properties": {"scopes": ["mcp:write", "profile"]}}},
	"unknown scope": {"subject": {"properties": {"scopes": ["mcp:other"]}}},
	"agent": {"subject": {"properties": {"client_id": "agent-1"}}},
	"actor": {"subject": {"properties": {"actor": "agent-2", "scopes": ["mcp:write"]}}},
	"issuer": {"subject": {"properties": {"issuer": "partner", "tenant": "default"}}},
	"groups": {"subject": {"properties": {"issuer": "partner", "groups": ["operations"], "scopes": ["mcp:read"]}}},
}

_limiting := object.union(fixtures.config, {
	"agents": {"agent-*": {"permissions": ["tools:read", "k8s:scale"]}},
	"groups": {"partner": {"operations": ["mcp:operator", "mcp:admin"]}},
	"issuers": {"partner": {"tenants": ["default"], "roles": ["mcp:viewer", "mcp:operator"]}},
})

test_under_every_ceiling_the_visible_tools_are_those_that_some_call_may_use if {
	every roles in _role_sets {
		every changes in _ceilings {
			request := fixtures.but(fixtures.request(roles, "tools/list"), changes)
			visible := decision.visible with input as request with data.config as _limiting
			callable := {tool | some tool, _ in fixtures.catalog.tools; _callable(roles, tool, changes)}
			{tool | some tool in visible.tools} == callable
			not _empty_list_is_allowed_by_accident(_decide_by(request, _limiting), callable)
		}
	}
}

# Arguments that cannot be allowed anywhere (`empty`, `malformed`) are left to the tests without ceilings: they cost half the time.
_callable(roles, tool, changes) if {
	some place in ["none", "development", "staging", "production", "kube-system", "everywhere"]
	answer := _decide_by(fixtures.but(fixtures.call(roles, tool, fixtures.places[place]), changes), _limiting)
	_effects[answer.effect] == "allow"
}

# Who may call nothing at all may not list either: both need tools:read, which every role that calls has.
_empty_list_is_allowed_by_accident(listing, callable) if {
	_effects[listing.effect] == "allow"
	callable == set()
}

test_no_ceiling_allows_what_the_roles_do_not_allow if {
	every roles in _role_sets {
		every tool, _ in fixtures.catalog.tools {
			every place in ["none", "everywhere", "staging", "development"] {
				request := fixtures.call(roles, tool, fixtures.places[place])
				unlimited := _effects[_decide_by(request, _limiting).effect]
				every name in ["scope", "scopes", "unknown scope", "agent", "actor"] {
					limited := _effects[_decide_by(fixtures.but(request, _ceilings[name]), _limiting).effect]
					[unlimited, limited] != ["deny", "allow"]
				}
			}
		}
	}
}

# The scope that a denial names is enough, and no denial names one if another thing is missing as well.
test_with_the_scope_that_is_missing_the_request_is_allowed if {
	every roles in _role_sets {
		every tool, _ in fixtures.catalog.tools {
			every place in ["none", "everywhere", "staging"] {
				request := fixtures.call(roles, tool, fixtures.places[place])
				unlimited := _effect(request)
				every given in [["mcp:read"], ["mcp:write"], ["mcp:other"]] {
					limited := _decide(_with_scopes(request, given))
					_with_the_missing_scope(request, given, limited) == unlimited
				}
			}
		}
	}
}

_with_scopes(request, scopes) := fixtures.but(request, {"subject": {"properties": {"scopes": scopes}}})

_with_the_missing_scope(request, given, limited) := _effect(_with_scopes(
	request,
	array.concat(given, [limited.missing_scope]),
)) if {
	object.get(limited, "missing_scope", "") != ""
} else := _effects[limited.effect]
