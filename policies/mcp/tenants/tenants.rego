# METADATA
# title: Tenants
# description: Which tenants are served, and that a tenant stays among its own things.
package mcp.tenants

import data.mcp.reasons

# METADATA
# title: The tenant is served
# description: An empty list of served tenants means every tenant that an accepted token names.
# custom:
#   code: tenant_not_served
#   message: this tenant is not served here
#   solution: ask an administrator to add the tenant to the policy data config/tenants
deny contains reasons.because(rego.metadata.chain(), []) if not _served

_served if {
	count(data.config.tenants.served) == 0
	not _suspended
}

_served if {
	input.subject.properties.tenant in data.config.tenants.served
	not _suspended
}

_suspended if input.subject.properties.tenant in data.config.tenants.suspended

# METADATA
# title: The resource belongs to the tenant
# description: A resource whose tenant is known is for the subjects of that tenant only.
own if object.get(input.resource, ["properties", "tenant"], input.subject.properties.tenant) == input.subject.properties.tenant
