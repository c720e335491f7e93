# METADATA
# title: Reading the audit log
# description: >-
#   Which rows a subject may read. The permission is that of the method audit/read. `tenant` in the properties of the resource is
#   the tenant whose rows are read; without it, the rows of all tenants are read.
package mcp.audit

import data.mcp.reasons

# METADATA
# title: The subject may read the requested rows
# description: Other methods pass.
ok if input.action.name != "audit/read"

ok if input.resource.properties.tenant == input.subject.properties.tenant

ok if input.subject.properties.tenant in data.config.audit.all_tenants

# METADATA
# title: The rows belong to the subject's tenant
# description: config/audit lists the tenants whose subjects may read the rows of other tenants too.
# custom:
#   code: audit_of_other_tenants
#   message: you may read the audit log of your own tenant only
#   solution: ask for the rows of your own tenant; an administrator may add your tenant to the policy data config/audit
why contains reasons.because(rego.metadata.chain(), []) if not ok
