# METADATA
# title: Access to tools, resources and prompts
# description: >-
#   Whether a subject can use a tool, resource or prompt with some arguments, and whether it can use it with the arguments of
#   the request. If no arguments are possible, the answer is the same as for a thing that does not exist.
package mcp.access

import data.mcp.methods
import data.mcp.patterns
import data.mcp.reasons
import data.mcp.subject
import data.mcp.tenants

# METADATA
# title: The subject may use the thing in the requested place
# description: Methods that do not name a tool, resource or prompt pass.
ok if methods.method.kinds == []

ok if _in_its_place

# METADATA
# title: Some arguments could be allowed
# description: True for an entry of the catalogue that the subject can use in at least one place.
reachable(thing) if {
	_placeless(thing)
	subject.may(thing.permission)
}

reachable(thing) if {
	is_string(thing.scope.namespace)
	_usable_in_a_namespace(thing)
	_named_somewhere
}

reachable(thing) if _usable_everywhere(thing)

# METADATA
# title: The namespaces in which the subject can use a thing
# description: The names and patterns that config/namespaces lists or that config/tenants gives the subject's tenant.
namespaces(thing) := [namespace |
	is_string(thing.scope.namespace)
	_usable_in_a_namespace(thing)
	some namespace in _known
	_named_for(namespace)
]

# METADATA
# title: The subject can use a thing in namespaces that are not listed
default in_other_namespaces(_) := false

in_other_namespaces(thing) if {
	is_string(thing.scope.namespace)
	_usable_in_a_namespace(thing)
	_named_for_unlisted
	not tenants.confined
}

# METADATA
# title: The subject can use a thing in all namespaces at once
default everywhere(_) := false

everywhere(thing) if _usable_everywhere(thing)

# METADATA
# title: The catalogue's entry of the requested thing
entry := data.config.catalog.tools[input.resource.id] if input.resource.type == "tool"

entry := data.config.catalog.resources[input.resource.id] if input.resource.type == "resource"

entry := data.config.catalog.prompts[input.resource.id] if input.resource.type == "prompt"

# METADATA
# title: The thing is available
# description: It exists, the method applies to its kind, and the subject can use it in at least one place.
# custom:
#   code: not_available
#   message: there is no such tool, resource or prompt, or it is not available to you
#   solution: list what is available to you; ask an administrator for a role if something is missing
why contains reasons.because(rego.metadata.chain(), []) if {
	_names_a_thing
	not _available
}

# METADATA
# title: The namespace is available
# description: >-
#   One of the subject's roles is listed for the namespace. For a change, the subject also needs the permission of the tool.
#   For reading, it does not need the permissions in `grants_to_read` of config/namespaces: the namespace's role grants them.
# custom:
#   code: namespace_not_available
#   message: there is no such namespace, or it is not available to you for this
#   solution: name a namespace that one of your roles may use; ask an administrator for a role if one is missing
why contains reasons.because(rego.metadata.chain(), []) if {
	_available
	not _in_its_place
	not _everywhere
}

# METADATA
# title: The whole cluster is available
# description: Only the roles in `cluster_wide` of config/namespaces may read all namespaces at once. Nobody may change them at once.
# custom:
#   code: cluster_wide_not_allowed
#   message: this is not available to you for all namespaces at once
#   solution: name one namespace
why contains reasons.because(rego.metadata.chain(), []) if {
	_available
	not _in_its_place
	_everywhere
}

_names_a_thing if count(methods.method.kinds) > 0

# If the subject may use the thing in the requested place, other places need not be searched.
_available if _in_its_place

_available if {
	input.resource.type in methods.method.kinds
	tenants.own
	reachable(entry)
}

_in_its_place if {
	tenants.own
	input.resource.type in methods.method.kinds
	_place_allowed
}

# There are three valid places: no place, one namespace, and all namespaces. Any other value is refused.
_place_allowed if {
	thing := entry
	thing.scope.namespace == null
	thing.scope.cluster_wide == false
	object.get(input.resource.properties, "all_namespaces", false) == false
	object.get(input.resource.properties, "namespace", null) == null
	subject.may(thing.permission)
}

_place_allowed if {
	thing := entry
	is_string(thing.scope.namespace)
	object.get(input.resource.properties, "all_namespaces", false) == false
	_usable_in_a_namespace(thing)
	patterns.is_label(input.resource.properties.namespace)
	_named_for(input.resource.properties.namespace)
}

_place_allowed if {
	_everywhere
	_usable_everywhere(entry)
}

_everywhere if input.resource.properties.all_namespaces == true

_everywhere if entry.scope.cluster_wide == true

_placeless(thing) if {
	thing.scope.namespace == null
	thing.scope.cluster_wide == false
}

_offered_everywhere(thing) if is_string(thing.scope.all_namespaces)

_offered_everywhere(thing) if thing.scope.cluster_wide == true

_named_for(namespace) if {
	tenants.open(namespace)
	_role_named_for(namespace)
}

_role_named_for(namespace) if {
	some role in _row(namespace).roles
	role in subject.roles
}

# The row of the namespace; without one, the row of the longest matching pattern; otherwise the row of unlisted namespaces.
_row(namespace) := row if {
	row := data.config.namespaces.listed[namespace]
} else := row if {
	row := data.config.namespaces.listed[patterns.longest(_patterns, namespace)]
} else := data.config.namespaces.unlisted

_patterns := patterns.among(object.keys(data.config.namespaces.listed))

_named_for_unlisted if {
	some role in data.config.namespaces.unlisted.roles
	role in subject.roles
}

_named_somewhere if {
	some namespace in _known
	_named_for(namespace)
}

_named_somewhere if {
	not tenants.confined
	_named_for_unlisted
}

# Names and patterns. A pattern is evaluated like a name. It represents the matching names that have no row of their own.
_known := (object.keys(object.get(data.config.namespaces, "listed", {})) | tenants.namespaces) | _common

# The intersections of a tenant's pattern and a listed pattern of which neither contains the other.
_common contains common if {
	tenants.confined
	some own in patterns.among(tenants.namespaces)
	some listed in _patterns
	not patterns.matches(own, listed)
	not patterns.matches(listed, own)
	some common in patterns.common(own, listed)
}

_usable_in_a_namespace(thing) if subject.may(thing.permission)

_usable_in_a_namespace(thing) if {
	thing.read_only == true
	thing.permission in data.config.namespaces.grants_to_read
	subject.within_ceilings(thing.permission)
}

_usable_everywhere(thing) if {
	_offered_everywhere(thing)
	not tenants.confined
	thing.read_only == true
	subject.may(thing.permission)
	some role in data.config.namespaces.cluster_wide.roles
	role in subject.roles
}
