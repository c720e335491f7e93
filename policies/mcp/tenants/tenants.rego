# METADATA
# title: Tenants
# description: Which tenants are served, and that a tenant stays among its own things.
package mcp.tenants

import data.mcp.patterns
import data.mcp.reasons

# METADATA
# title: The tenant is served
# description: An empty list of served tenants means every tenant that an accepted token names.
ok if {
	_served
	_active
}

# METADATA
# title: The resource belongs to the tenant
# description: A resource whose tenant is known is for the subjects of that tenant only.
own if {
	tenant := input.subject.properties.tenant
	object.get(input.resource.properties, "tenant", tenant) == tenant
}

# METADATA
# title: The tenant is confined to namespaces of its own
# description: A tenant that config/tenants gives namespaces, even none; every other tenant shares all of them.
confined if data.config.tenants.namespaces[input.subject.properties.tenant]

# METADATA
# title: The namespaces of a confined tenant
# description: Names and patterns.
default namespaces := set()

namespaces := {namespace | some namespace in data.config.tenants.namespaces[input.subject.properties.tenant]} if confined

# METADATA
# title: A namespace is open to the tenant
open(_) if not confined

open(namespace) if namespace in namespaces

open(namespace) if {
	some pattern in patterns.among(namespaces)
	patterns.matches(pattern, namespace)
}

# METADATA
# title: The tenant is served
# description: Tenants which are not served, or suspended, are refused whatever they ask for.
# custom:
#   code: tenant_not_served
#   message: this tenant is not served here
#   solution: ask an administrator to add the tenant to the policy data config/tenants
why contains reasons.because(rego.metadata.chain(), []) if not ok

_served if data.config.tenants.served == []

_served if input.subject.properties.tenant in data.config.tenants.served

# Every comparison must hold, so a suspension list that is missing or is no list serves nobody.
_active if {
	is_array(data.config.tenants.suspended)
	every suspended in data.config.tenants.suspended {
		suspended != input.subject.properties.tenant
	}
}
