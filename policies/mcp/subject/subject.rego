# METADATA
# title: Who is asking
# description: Roles and permissions of the subject. Roles which the policy data does not know give nothing.
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
# title: Roles of the subject which the policy data knows
# description: The roles of the policy data are few; a token may name thousands.
roles contains role if {
	is_array(input.subject.properties.roles)
	some role, _ in data.config.roles
	role in input.subject.properties.roles
}

# METADATA
# title: The subject holds a permission
# description: One of its roles gives the permission, or `*`, which is all of them.
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
