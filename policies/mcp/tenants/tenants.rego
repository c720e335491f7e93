# METADATA
# title: Tenants
# description: Which tenants are served, and that subjects access only resources of their tenant.
package mcp.tenants

import data.mcp.patterns
import data.mcp.reasons

# METADATA
# title: The tenant is served
# description: An empty list of served tenants accepts every tenant in an accepted token.
ok if {
	_served
	_active
}

# METADATA
# title: The resource belongs to the tenant
# description: If the tenant of a resource is known, only subjects of that tenant may access it.
own if {
	tenant := input.subject.properties.tenant
	object.get(input.resource.properties, "tenant", tenant) == tenant
}

# METADATA
# title: The tenant is confined to its own namespaces
# description: config/tenants lists namespaces for the tenant, or an empty list. Other tenants share all namespaces.
confined if data.config.tenants.namespaces[input.subject.properties.tenant]

# METADATA
# title: The namespaces of a confined tenant
# description: Both names and patterns.
default namespaces := set()

namespaces := {namespace | some namespace in data.config.tenants.namespaces[input.subject.properties.tenant]} if confined

# METADATA
# title: The tenant may use a namespace
open(_) if not confined

open(namespace) if namespace in namespaces

open(namespace) if {
	some pattern in patterns.among(namespaces)
	patterns.matches(pattern, namespace)
}

# METADATA
# title: The tenant is served
# description: Every request of a tenant that is not served, or that is suspended, is refused.
# custom:
#   code: tenant_not_served
#   message: this tenant is not served here
#   solution: ask an administrator to add the tenant to the policy data config/tenants
why contains reasons.because(rego.metadata.chain(), []) if not ok

_served if data.config.tenants.served == []

_served if input.subject.properties.tenant in data.config.tenants.served

# All comparisons must hold: if the list of suspended tenants is missing or not a list, no tenant is served.
_active if {
	is_array(data.config.tenants.suspended)
	every suspended in data.config.tenants.suspended {
		suspended != input.subject.properties.tenant
	}
}
