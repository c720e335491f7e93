# METADATA
# title: Checks of the policy data
# description: >-
#   Not a part of the bundle: `scripts/policy lint` asks for `findings` before anything is shipped. Each finding names the file,
#   the path in it, what is wrong and what is accepted, and nothing is published.
package lint

# METADATA
# title: Everything that is wrong with data.config
# description: Objects with file, path and message.
# entrypoint: true
findings contains _finding(area, [], message) if {
	some area, _ in data.config
	not data.schemas[area]
	message := sprintf("is not a part of the policy data; accepted are %s", [_list(_areas)])
}

findings contains _finding(area, [], "is missing") if {
	some area in _areas
	not data.config[area]
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
	message := sprintf("unknown role %q; accepted are %s", [role, _list(object.keys(data.config.roles))])
}

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

_areas := object.keys(data.schemas) - {"input", "batch"}

_permissions := object.keys(data.config.permissions)

_namespace_roles contains [["listed", name, "roles"], settings.roles] if {
	some name, settings in data.config.namespaces.listed
}

_namespace_roles contains [[name, "roles"], data.config.namespaces[name].roles] if {
	some name in ["unlisted", "cluster_wide"]
}

_unknown_permission(area, path, permission) := _finding(area, path, message) if {
	message := sprintf("unknown permission %q; accepted are %s", [permission, _list(_permissions)])
}

_finding(area, path, message) := {
	"file": sprintf("policies/config/%s/data.yaml", [area]),
	"path": concat(".", [sprintf("%v", [part]) | some part in array.concat([area], path)]),
	"message": message,
}

# The path that json.match_schema gives: keys joined by dots, "(Root)" for the whole document.
_fields(field) := [] if {
	lower(field) == "(root)"
} else := split(field, ".")

_explain(area, flaw) := sprintf("%s; accepted are %s", [flaw.desc, _list(object.keys(_at(area, flaw.field).properties))]) if {
	flaw.type == "additional_property_not_allowed"
} else := flaw.desc

# The part of the schema that governs a field, down to the depth at which keys are chosen by the schema.
_at(area, field) := node if {
	keys := _fields(field)
	nodes := [data.schemas[area], _child(data.schemas[area], keys, 0), _child(_child(data.schemas[area], keys, 0), keys, 1)]
	node := nodes[count(keys)]
}

_child(node, keys, depth) := object.get(object.get(node, "properties", {}), keys[depth], object.get(node, "additionalProperties", {})) if {
	depth < count(keys)
} else := {}

_list(names) := concat(", ", sort([name | some name in names]))
