# METADATA
# title: Subject
# description: >-
#   Roles and permissions of the subject. Roles that the policy data does not define, or that the issuer of the token may not
#   assert, grant nothing.
package mcp.subject

import data.mcp.agents
import data.mcp.issuers
import data.mcp.reasons
import data.mcp.scopes

# METADATA
# title: The subject is identified
# description: A subject is a user with an id and a tenant that are not blank.
ok if {
	input.subject.type == "user"
	is_string(input.subject.id)
	trim_space(input.subject.id) != ""
	is_string(input.subject.properties.tenant)
	trim_space(input.subject.properties.tenant) != ""
}

# METADATA
# title: The subject's roles
# description: >-
#   The roles of the token and of its groups that the policy data defines and that the issuer may assert. The policy data
#   defines few roles, while a token may contain thousands.
roles := issuers.assertable({role |
	is_array(input.subject.properties.roles)
	some role, _ in data.config.roles
	role in input.subject.properties.roles
} | _roles_of_groups)

# METADATA
# title: The subject holds a permission
# description: One of its roles grants the permission, or `*`, and neither its scopes nor its agents forbid it.
may(permission) if {
	permission in _permissions
	within_ceilings(permission)
}

may(permission) if {
	"*" in _permissions
	within_ceilings(permission)
}

# METADATA
# title: The scopes of the token and its agents allow a permission
within_ceilings(permission) if {
	scopes.allow(permission)
	agents.allow(permission)
}

# METADATA
# title: The subject is identified
# description: A subject is a user with an id and a tenant that are not blank.
# custom:
#   code: subject_not_identified
#   message: the caller has no type, id or tenant
#   solution: use a token that names its subject and its tenant
why contains reasons.because(rego.metadata.chain(), []) if not ok

_roles_of_groups contains role if {
	some group, granted in data.config.groups[input.subject.properties.issuer]
	group in _groups
	some role in granted
	data.config.roles[role]
}

_groups := {group | some group in input.subject.properties.groups}

_permissions := {permission |
	some role in roles
	some permission in data.config.roles[role].permissions
}
