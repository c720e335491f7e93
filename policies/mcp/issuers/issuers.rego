# METADATA
# title: Issuers
# description: The tenants and roles that the issuer of a token may assert. An issuer without a row in config/issuers may assert nothing.
package mcp.issuers

import data.mcp.reasons

# METADATA
# title: The issuer may assert the tenant
ok if "*" in _row.tenants

ok if input.subject.properties.tenant in _row.tenants

# METADATA
# title: Those of some roles that the issuer may assert
assertable(roles) := roles if {
	"*" in _row.roles
} else := {role | some role in _row.roles} & roles

# METADATA
# title: Tokens of the issuer need a scope
requires_scopes if _row.scopes == "required"

# METADATA
# title: The issuer may assert the tenant
# description: A company's issuer speaks for the tenants in its row only.
# custom:
#   code: issuer_not_trusted
#   message: the issuer of the token may not assert this tenant
#   solution: sign in with the issuer of the tenant, or ask an administrator to add the tenant to the issuer's row in config/issuers
why contains reasons.because(rego.metadata.chain(), []) if not ok

_row := data.config.issuers[input.subject.properties.issuer]
