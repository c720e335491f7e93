package lint_test

import data.fixtures
import data.lint

# The fixtures with what a complete configuration has besides.
_config := object.union(json.patch(fixtures.config, _no_resources), {
	"permissions": {name: "what it is for" |
		some name in ["tools:read", "tools:execute", "metrics:query", "k8s:get", "k8s:scale", "k8s:restart", "audit:read"]
	},
	"catalog": {
		"tools": {name: object.union(entry, {
			"family": "x",
			"wire": replace(name, ":", "_"),
			"destructive": false,
		}) |
			some name, entry in fixtures.catalog.tools
		},
	},
})

_no_resources := [
	{"op": "replace", "path": "/catalog/resources", "value": {}},
	{"op": "replace", "path": "/catalog/prompts", "value": {}},
]

_findings(changes) := findings if {
	config := json.patch(_config, changes)
	findings := lint.findings with data.config as config
}

_found(changes, file, path, text) if {
	some finding in _findings(changes)
	finding.file == file
	finding.path == path
	contains(finding.message, text)
}

_replace(path, value) := [{"op": "add", "path": path, "value": value}]

test_complete_data_has_no_findings if _findings([]) == set()

test_a_cidr_with_a_typing_error_is_named_with_what_is_accepted if {
	every block in ["10.0.0.0/33", "10.0.0/8", "10.0.0.1", "10.0.0.0/8 ", "2001:db8::/129"] {
		_found(
			_replace("/network/allow", ["10.0.0.0/8", block]),
			"policies/config/network/data.yaml", "network.allow.1", "is not a CIDR block; accepted are blocks such as",
		)
	}
}

test_a_cidr_with_bits_beyond_its_prefix_is_named_with_the_right_one if {
	_found(
		_replace("/network/allow", ["10.20.30.40/16"]),
		"policies/config/network/data.yaml", "network.allow.0", "write \"10.20.0.0/16\"",
	)
}

test_valid_blocks_pass if {
	findings := _findings(_replace("/network/allow", ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]))
	every finding in findings {
		finding.file != "policies/config/network/data.yaml"
	}
}

test_an_unknown_permission_in_a_role_is_named if {
	_found(
		_replace("/roles/mcp:viewer/permissions", ["tools:read", "tools:raed"]),
		"policies/config/roles/data.yaml", "roles.mcp:viewer.permissions.1", "unknown permission \"tools:raed\"; accepted are audit:read, k8s:get,",
	)
}

test_an_unknown_permission_of_a_method_is_named if {
	_found(
		_replace("/methods/ping/permission", "pong"),
		"policies/config/methods/data.yaml", "methods.ping.permission", "unknown permission \"pong\"",
	)
}

test_an_unknown_permission_granted_to_read_is_named if {
	_found(
		_replace("/namespaces/grants_to_read", ["k8s:gte"]),
		"policies/config/namespaces/data.yaml", "namespaces.grants_to_read.0", "unknown permission \"k8s:gte\"",
	)
}

test_an_unknown_permission_in_the_catalogue_is_named if {
	_found(
		_replace("/catalog/tools/k8s:get_pods/permission", "k8s:list"),
		"policies/config/catalog/data.yaml", "catalog.tools.k8s:get_pods.permission", "unknown permission \"k8s:list\"",
	)
}

test_an_unknown_role_in_a_namespace_is_named if {
	accepted := "unknown role \"mcp:root\"; accepted are mcp:admin, mcp:operator, mcp:viewer"
	file := "policies/config/namespaces/data.yaml"
	_found(_replace("/namespaces/listed/staging/roles", ["mcp:root"]), file, "namespaces.listed.staging.roles", accepted)
	_found(_replace("/namespaces/unlisted/roles", ["mcp:root"]), file, "namespaces.unlisted.roles", accepted)
	_found(_replace("/namespaces/cluster_wide/roles", ["mcp:root"]), file, "namespaces.cluster_wide.roles", accepted)
}

test_an_unknown_role_of_the_lockdown_is_named if {
	message := "unknown role \"mcp:root\"; accepted are mcp:admin, mcp:operator, mcp:viewer"
	_found(_replace("/lockdown/roles", ["mcp:root"]), "policies/config/lockdown/data.yaml", "lockdown.roles.0", message)
}

test_a_limit_that_is_not_a_positive_integer_is_named if {
	file := "policies/config/limits/data.yaml"
	_found(_replace("/limits/user/limit", 0), file, "limits.user.limit", "greater than or equal to 1")
	_found(_replace("/limits/tenant", {"limit": 0, "window_s": 1}), file, "limits.tenant.limit", "greater than or equal to 1")
	_found(_replace("/limits/user/limit", -5), file, "limits.user.limit", "greater than or equal to 1")
	_found(_replace("/limits/user/limit", 1.5), file, "limits.user.limit", "integer")
	_found(_replace("/limits/global/window_s", "1h"), file, "limits.global.window_s", "Expected: integer")
	_found(_replace("/limits/tool/k8s:scale/per", "team"), file, "limits.tool.k8s:scale.per", "\"everyone\", \"tenant\", \"user\"")
}

test_an_unknown_key_is_named_with_the_accepted_ones if {
	_found(
		_replace("/limits/tennant", {}),
		"policies/config/limits/data.yaml", "limits", "property tennant is not allowed; accepted are agent, global, method, tenant, tool, user",
	)
	_found(
		_replace("/limits/user/limt", 1),
		"policies/config/limits/data.yaml", "limits.user", "property limt is not allowed; accepted are limit, window_s",
	)
	_found(
		_replace("/limits/tool/k8s:scale/limt", 1),
		"policies/config/limits/data.yaml", "limits.tool.k8s:scale", "accepted are limit, per, window_s",
	)
}

test_a_missing_part_is_named if {
	_found(
		[{"op": "remove", "path": "/tenants"}],
		"policies/config/tenants/data.yaml", "tenants", "is missing",
	)
	_found(
		[{"op": "remove", "path": "/limits/user"}],
		"policies/config/limits/data.yaml", "limits", "user is required",
	)
}

test_a_part_without_keys_is_named if {
	every area in lint._areas {
		every value in [null, [], "", "x", 7, false] {
			_found(
				_replace(concat("/", ["", area]), value),
				sprintf("policies/config/%s/data.yaml", [area]), area,
				sprintf("is empty or has no keys; accepted is what policies/schemas/%s/schema.json describes", [area]),
			)
		}
	}
}

test_an_unknown_part_is_named if {
	_found(
		_replace("/netwrok", {"allow": []}),
		"policies/config/netwrok/data.yaml", "netwrok", "is not a part of the policy data; accepted are agents, audit, catalog,",
	)
}

test_an_unknown_role_of_an_issuer_or_a_group_is_named if {
	_found(
		_replace("/issuers/shared-secret/roles", ["mcp:viewer", "mcp:vieewr"]),
		"policies/config/issuers/data.yaml", "issuers.shared-secret.roles.1", "unknown role \"mcp:vieewr\"; accepted are mcp:admin,",
	)
	_found(
		_replace("/groups/shared-secret", {"ops": ["mcp:vieewr"]}),
		"policies/config/groups/data.yaml", "groups.shared-secret.ops.0", "unknown role \"mcp:vieewr\"",
	)
	_findings(_replace("/groups/shared-secret", {"ops": ["mcp:viewer"]})) == set()
}

test_groups_of_an_unknown_issuer_are_refused if {
	_found(
		_replace("/groups/keycloack", {"ops": ["mcp:viewer"]}),
		"policies/config/groups/data.yaml", "groups.keycloack", "is no issuer, so its groups grant nothing; accepted are shared-secret",
	)
}

test_a_tenant_of_an_issuer_is_written_out if {
	_found(
		_replace("/issuers/shared-secret/tenants", ["acme-*"]),
		"policies/config/issuers/data.yaml", "issuers.shared-secret.tenants.0", "a * stands for nothing else here",
	)
}

test_an_unknown_permission_of_a_ceiling_is_named if {
	_found(
		_replace("/scopes/mcp:read/permissions", ["tools:raed"]),
		"policies/config/scopes/data.yaml", "scopes.mcp:read.permissions.0", "unknown permission \"tools:raed\"",
	)
	_found(
		_replace("/agents/bot", {"permissions": ["*", "tools:raed"]}),
		"policies/config/agents/data.yaml", "agents.bot.permissions.1", "unknown permission \"tools:raed\"",
	)
}

test_an_agent_is_an_id_or_a_pattern_with_one_star if {
	every name in ["a*b*", "a?", "a{b}", "a[b]"] {
		_found(
			_replace(concat("/", ["/agents", name]), {"permissions": []}),
			"policies/config/agents/data.yaml", sprintf("agents.%s", [name]), "is not the id of an agent; accepted are ids",
		)
		_found(
			_replace("/limits/agent", {name: {"limit": 1, "window_s": 1}}),
			"policies/config/limits/data.yaml", sprintf("limits.agent.%s", [name]), "is not the id of an agent; accepted are ids",
		)
	}
	every name in ["*", "https:~1~1agents.example.com~1*", "release-agent"] {
		_findings(_replace(concat("/", ["/agents", name]), {"permissions": []})) == set()
	}
}

test_a_limit_of_an_unknown_tool_is_refused if {
	_found(
		_replace("/limits/tool/k8s:sacle", {"limit": 1, "window_s": 1, "per": "user"}),
		"policies/config/limits/data.yaml", "limits.tool.k8s:sacle", "limits nothing: there is no such tool or permission; accepted are audit:read, cmdb:get_change_records, ",
	)
}

test_calls_have_no_limit_that_takes_the_place_of_all_others if {
	_found(
		_replace("/limits/method/tools~1call", {"limit": 1, "window_s": 1}),
		"policies/config/limits/data.yaml", "limits.method", "property tools/call is not allowed; accepted are completion/complete",
	)
}

test_obligations_of_an_unknown_tool_are_refused if {
	_found(
		_replace("/obligations/tool/absent", {"timeout_s": 1}),
		"policies/config/obligations/data.yaml", "obligations.tool.absent", "obliges nothing: there is no such tool or resource; accepted are cmdb:get_change_records, ",
	)
}

_not_a_namespace := "is not the name of a namespace; accepted are names such as team-a (lower case letters, digits and -, at most 63,"

test_what_cannot_be_a_namespace_or_a_pattern_of_one_is_refused if {
	every name in ["Prod", "prod.eu", "prod-", "-*", "*-", "prod_*", "a*b*", "**", "prod-?", "prod-[a-z]", "{a,b}", " *", ""] {
		_found(
			_replace("/namespaces/listed", {name: {"roles": []}}),
			"policies/config/namespaces/data.yaml", concat(".", ["namespaces.listed", name]), _not_a_namespace,
		)
		_found(
			_replace("/tenants/namespaces", {"acme": ["shop", name]}),
			"policies/config/tenants/data.yaml", "tenants.namespaces.acme.1", _not_a_namespace,
		)
	}
}

test_names_and_patterns_of_namespaces_pass if {
	names := ["a", "team-a", "prod-*", "*-eu", "shop-*-eu", "team*", concat("", ["x-", substring(_sixty, 0, 59), "*"])]
	_findings(_replace("/namespaces/listed", {name: {"roles": []} | some name in names})) == set()
	_findings(_replace("/tenants/namespaces", {"acme": array.concat(names, ["*"]), "none": []})) == set()
}

_sixty := concat("", [digits | some _ in numbers.range(1, 6); digits := "0123456789"])

test_a_namespace_longer_than_a_label_is_refused if {
	_found(
		_replace("/tenants/namespaces", {"acme": [concat("", [_sixty, "abcd"])]}),
		"policies/config/tenants/data.yaml", "tenants.namespaces.acme.0", _not_a_namespace,
	)
}

test_every_namespace_is_not_listed_by_a_star if {
	_found(
		_replace("/namespaces/listed", {"*": {"roles": []}}),
		"policies/config/namespaces/data.yaml", "namespaces.listed.*", "\"*\" is every namespace; accepted is a narrower pattern",
	)
}

test_two_patterns_of_which_none_goes_before_the_other_are_refused if {
	_found(
		_replace("/namespaces/listed", {"ab-*": {"roles": []}, "*-cd": {"roles": []}}),
		"policies/config/namespaces/data.yaml", "namespaces.listed.ab-*",
		"is as long as \"*-cd\" and can match the same namespace, such as \"ab-cd\"; accepted are patterns of which one is longer",
	)
}

test_patterns_of_the_same_length_that_never_meet_pass if {
	_findings(_replace("/namespaces/listed", {"ab-*": {"roles": []}, "ac-*": {"roles": []}, "*-abc": {"roles": []}})) == set()
}

test_a_star_is_refused_where_it_would_match_nothing if {
	tenants := "policies/config/tenants/data.yaml"
	names := "accepted are names of tenants, each written out"
	_found(_replace("/tenants/served", ["acme", "evil-*"]), tenants, "tenants.served.1", names)
	_found(
		_replace("/tenants/suspended", ["evil-*"]),
		tenants, "tenants.suspended.0", "\"evil-*\": a * stands for nothing else here",
	)
	_found(_replace("/tenants/namespaces", {"acme-*": []}), tenants, "tenants.namespaces.acme-*", names)

	obligations := "policies/config/obligations/data.yaml"
	fields := "accepted are names of fields, each written out"
	_found(_replace("/obligations/default/redact", ["*_key"]), obligations, "obligations.default.redact.0", fields)
	_found(
		_replace("/obligations/tool/k8s:get_pods", {"redact": ["*_key"]}),
		obligations, "obligations.tool.k8s:get_pods.redact.0", fields,
	)
}
