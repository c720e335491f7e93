# METADATA
# title: Subject
# description: Roles and permissions of the subject. Roles that the policy data does not define grant nothing.
package mcp.subject

import data.mcp.reasons

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
# title: The subject's roles that the policy data defines
# description: The policy data defines few roles, while a token may contain thousands.
roles contains role if {
	is_array(input.subject.properties.roles)
	some role, _ in data.config.roles
	role in input.subject.properties.roles
}

# METADATA
# title: The subject holds a permission
# description: One of its roles grants the permission, or `*`, which grants all permissions.
may(permission) if {
	some role, settings in data.config.roles
	permission in settings.permissions
	role in input.subject.properties.roles
}

may(_) if {
	some role, settings in data.config.roles
	"*" in settings.permissions
	role in input.subject.properties.roles
}

# METADATA
# title: The subject is identified
# description: A subject is a user with an id and a tenant that are not blank.
# custom:
#   code: subject_not_identified
#   message: the caller has no type, id or tenant
#   solution: use a token that names its subject and its tenant
why contains reasons.because(rego.metadata.chain(), []) if not ok
