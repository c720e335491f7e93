# METADATA
# title: Scopes
# description: The OAuth scopes of a token are a ceiling on the permissions that the subject's roles grant.
package mcp.scopes

import data.mcp.issuers

# METADATA
# title: The scopes of the token limit it
# description: It has a scope of config/scopes, or one that looks like it, or its issuer requires scopes.
limited if {
	some scope in input.subject.properties.scopes
	data.config.scopes[scope]
}

limited if {
	some scope in input.subject.properties.scopes
	startswith(scope, "mcp:")
}

limited if issuers.requires_scopes

# METADATA
# title: The scopes allow a permission
allow(_) if not limited

allow(permission) if permission in _ceiling

allow(_) if "*" in _ceiling

# METADATA
# title: The least scope that allows a permission
# description: The one with the fewest permissions. `*` counts as all.
least_for(permission) := least({scope |
	some scope, settings in data.config.scopes
	some allowed in [permission, "*"]
	allowed in settings.permissions
})

# METADATA
# title: The least of some scopes
# description: Undefined if there is none.
least(scopes) := min({[_size(data.config.scopes[scope].permissions), scope] | some scope in scopes})[1]

_size(permissions) := 1000 if {
	"*" in permissions
} else := count(permissions)

_ceiling := {permission |
	some scope in input.subject.properties.scopes
	some permission in data.config.scopes[scope].permissions
}
