# METADATA
# title: Checks of the policy data
# description: >-
#   This package is not part of the bundle. `policyctl lint` evaluates `findings` before it builds a bundle. Each finding has
#   the file, the path within it, and a message with the error and the accepted values. Any finding prevents publishing.
package lint

import data.mcp.patterns

# METADATA
# title: The errors in data.config
# description: Objects with file, path and message.
# entrypoint: true
findings contains _finding(area, [], message) if {
	some area, _ in data.config
	not data.schemas[area]
	message := sprintf("is not a part of the policy data; accepted are %s", [_list(_areas)])
}

findings contains _finding(area, [], "is missing") if {
	some area in _areas
	not area in object.keys(data.config)
}

# json.match_schema fails on a value that is not an object, so it would report nothing.
findings contains _finding(area, [], message) if {
	some area in _areas
	settings := data.config[area]
	not is_object(settings)
	message := sprintf("is empty or has no keys; accepted is what policies/schemas/%s/schema.json describes", [area])
}

findings contains _finding(area, _fields(flaw.field), _explain(area, flaw)) if {
	some area in _areas
	[_, flaws] := json.match_schema(data.config[area], data.schemas[area])
	some flaw in flaws
}

findings contains _unknown_permission("roles", [role, "permissions", i], permission) if {
	some role, settings in data.config.roles
	some i, permission in settings.permissions
	not permission in (_permissions | {"*"})
}

findings contains _unknown_permission("methods", [method, "permission"], settings.permission) if {
	some method, settings in data.config.methods
	not settings.permission in (_permissions | {null})
}

findings contains _unknown_permission("namespaces", ["grants_to_read", i], permission) if {
	some i, permission in data.config.namespaces.grants_to_read
	not permission in _permissions
}

findings contains _unknown_permission("catalog", [kind, name, "permission"], entry.permission) if {
	some kind, entries in data.config.catalog
	some name, entry in entries
	not entry.permission in _permissions
}

findings contains _finding("namespaces", path, message) if {
	some [path, roles] in _namespace_roles
	some role in roles
	not data.config.roles[role]
	message := _unknown_role_message(role)
}

findings contains _unknown_permission(area, [name, "permissions", i], permission) if {
	some area in ["agents", "scopes"]
	some name, settings in data.config[area]
	some i, permission in settings.permissions
	not permission in (_permissions | {"*"})
}

findings contains _unknown_role("issuers", [issuer, "roles", i], role) if {
	some issuer, settings in data.config.issuers
	some i, role in settings.roles
	not role in (object.keys(data.config.roles) | {"*"})
}

findings contains _unknown_role("lockdown", ["roles", i], role) if {
	some i, role in data.config.lockdown.roles
	not data.config.roles[role]
}

findings contains _unknown_role("groups", [issuer, group, i], role) if {
	some issuer, groups in data.config.groups
	some group, roles in groups
	some i, role in roles
	not data.config.roles[role]
}

findings contains _finding("groups", [issuer], message) if {
	some issuer, _ in data.config.groups
	not data.config.issuers[issuer]
	message := sprintf("is no issuer, so its groups grant nothing; accepted are %s", [_list(object.keys(data.config.issuers))])
}

findings contains _finding("agents", [name], _not_an_agent) if {
	some name, _ in data.config.agents
	_is_no_agent(name)
}

findings contains _finding("limits", ["agent", name], _not_an_agent) if {
	some name, _ in data.config.limits.agent
	_is_no_agent(name)
}

_is_no_agent(name) if regex.match(`[?{}\[\]\\]|\*.*\*`, name)

_not_an_agent := "is not the id of an agent; accepted are ids, and patterns of ids with one *, without ?, {, }, [, ] and \\"

findings contains _finding("network", ["allow", i], message) if {
	some i, block in data.config.network.allow
	is_string(block)
	not net.cidr_is_valid(block)
	message := sprintf("%q is not a CIDR block; accepted are blocks such as 10.20.0.0/16, 192.0.2.7/32 or 2001:db8::/32", [block])
}

findings contains _finding("network", ["allow", i], message) if {
	some i, block in data.config.network.allow
	is_string(block)
	net.cidr_is_valid(block)
	some canonical in net.cidr_merge([block])
	canonical != block
	message := sprintf("%q has bits beyond its prefix; write %q, or a longer prefix", [block, canonical])
}

findings contains _finding(area, path, message) if {
	some [area, path, name] in _namespaces
	is_string(name)
	not _names_a_namespace(name)
	message := sprintf("%q is not the name of a namespace; accepted are %s", [name, concat(" ", [
		"names such as team-a (lower case letters, digits and -, at most 63, a letter or digit first and last)",
		"and patterns of such names with one *, such as team-a-*, *-eu or shop-*-eu",
	])])
}

findings contains _finding("namespaces", ["listed", "*"], message) if {
	data.config.namespaces.listed["*"]
	message := "\"*\" is every namespace; accepted is a narrower pattern, and for all that are not listed: unlisted"
}

findings contains _finding("namespaces", ["listed", pattern], message) if {
	some pattern, other in _rivals
	message := sprintf("is as long as %q and can match the same namespace, such as %q; %s", [
		other,
		min({replace(common, "*", "x") | some common in patterns.common(pattern, other)}),
		"accepted are patterns of which one is longer, or the namespace listed by its name",
	])
}

findings contains _finding(area, path, message) if {
	some [area, path, name, what] in _without_patterns
	is_string(name)
	contains(name, "*")
	message := sprintf("%q: a * stands for nothing else here; accepted are names of %s, each written out", [name, what])
}

findings contains _finding("limits", ["tool", name], message) if {
	limited := _permissions | object.keys(data.config.catalog.tools)
	some name, _ in data.config.limits.tool
	not name in limited
	message := sprintf("limits nothing: there is no such tool or permission; accepted are %s", [_list(limited)])
}

findings contains _finding("obligations", ["tool", name], message) if {
	obliged := object.keys(data.config.catalog.tools) | object.keys(data.config.catalog.resources)
	some name, _ in data.config.obligations.tool
	not name in obliged
	message := sprintf("obliges nothing: there is no such tool or resource; accepted are %s", [_list(obliged)])
}

_areas := object.keys(data.schemas) - {"input", "batch", "sign_in_input"}

_permissions := object.keys(data.config.permissions)

_namespace_roles contains [["listed", name, "roles"], settings.roles] if {
	some name, settings in data.config.namespaces.listed
}

_namespace_roles contains [[name, "roles"], data.config.namespaces[name].roles] if {
	some name in ["unlisted", "cluster_wide"]
}

_namespaces contains ["namespaces", ["listed", name], name] if some name, _ in data.config.namespaces.listed

_namespaces contains ["tenants", ["namespaces", tenant, i], name] if {
	some tenant, names in data.config.tenants.namespaces
	some i, name in names
}

# A label of RFC 1123, or such a label with a `*` in place of a part.
_names_a_namespace(name) if {
	count(split(name, "*")) < 3
	regex.match(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`, replace(name, "*", "x"))
}

# Pairs of listed patterns with equal precedence that can match the same namespace.
_rivals[pattern] := max(others) if {
	listed := {name | some name in patterns.among(object.keys(data.config.namespaces.listed)); _names_a_namespace(name)}
	some pattern in listed
	others := {other |
		some other in listed
		other < pattern
		count(other) == count(pattern)
		patterns.common(pattern, other) != set()
	}
	count(others) > 0
}

_without_patterns contains ["tenants", [list, i], name, "tenants"] if {
	some list in ["served", "suspended"]
	some i, name in data.config.tenants[list]
}

_without_patterns contains ["tenants", ["namespaces", name], name, "tenants"] if {
	some name, _ in data.config.tenants.namespaces
}

_without_patterns contains ["issuers", [issuer, "tenants", i], name, "tenants"] if {
	some issuer, settings in data.config.issuers
	some i, name in settings.tenants
	name != "*"
}

_without_patterns contains ["obligations", ["default", "redact", i], name, "fields"] if {
	some i, name in data.config.obligations.default.redact
}

_without_patterns contains ["obligations", ["tool", tool, "redact", i], name, "fields"] if {
	some tool, settings in data.config.obligations.tool
	some i, name in settings.redact
}

_unknown_permission(area, path, permission) := _finding(area, path, message) if {
	message := sprintf("unknown permission %q; accepted are %s", [permission, _list(_permissions)])
}

_unknown_role(area, path, role) := _finding(area, path, _unknown_role_message(role))

_unknown_role_message(role) := sprintf("unknown role %q; accepted are %s", [role, _list(object.keys(data.config.roles))])

_finding(area, path, message) := {
	"file": sprintf("policies/config/%s/data.yaml", [area]),
	"path": concat(".", [sprintf("%v", [part]) | some part in array.concat([area], path)]),
	"message": message,
}

# The path of an error of json.match_schema: keys joined by dots, or "(Root)" for the whole document.
_fields(field) := [] if {
	lower(field) == "(root)"
} else := split(field, ".")

_explain(area, flaw) := sprintf("%s; accepted are %s", [flaw.desc, _list(object.keys(_at(area, flaw.field).properties))]) if {
	flaw.type == "additional_property_not_allowed"
} else := flaw.desc

# The schema of a field, down to the depth at which the schema chooses the keys.
_at(area, field) := node if {
	keys := _fields(field)
	nodes := [data.schemas[area], _child(data.schemas[area], keys, 0), _child(_child(data.schemas[area], keys, 0), keys, 1)]
	node := nodes[count(keys)]
}

_child(node, keys, depth) := object.get(object.get(node, "properties", {}), keys[depth], object.get(node, "additionalProperties", {})) if {
	depth < count(keys)
} else := {}

_list(names) := concat(", ", sort([name | some name in names]))
