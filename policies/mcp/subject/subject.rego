# METADATA
# title: Who is asking
# description: Roles and permissions of the subject. Roles which the policy data does not know give nothing.
package mcp.subject

import data.mcp.reasons

# METADATA
# title: The subject is identified, in this version of the protocol
ok if {
	input.version == 1
	_identified
}

# METADATA
# title: Roles of the subject which the policy data knows
roles contains role if {
	some role in input.subject.properties.roles
	data.config.roles[role]
}

# METADATA
# title: The subject holds a permission
# description: One of its roles gives the permission, or `*`, which is all of them.
may(permission) if {
	some role in input.subject.properties.roles
	permission in data.config.roles[role].permissions
}

may(_) if {
	some role in input.subject.properties.roles
	"*" in data.config.roles[role].permissions
}

# METADATA
# title: The request speaks this protocol
# description: A request of another protocol version might mean something else by the same fields.
# custom:
#   code: unsupported_version
#   message: this policy does not speak the protocol version of the request
#   solution: publish the policies that belong to the installed server version
deny contains reasons.because(rego.metadata.chain(), []) if not input.version == 1

# METADATA
# title: The subject is identified
# description: A subject is a user with an id and a tenant.
# custom:
#   code: subject_not_identified
#   message: the caller has no type, id or tenant
#   solution: use a token that names its subject and its tenant
deny contains reasons.because(rego.metadata.chain(), []) if not _identified

_identified if {
	input.subject.type == "user"
	is_string(input.subject.id)
	input.subject.id != ""
	is_string(input.subject.properties.tenant)
	input.subject.properties.tenant != ""
}
