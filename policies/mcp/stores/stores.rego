# METADATA
# title: Stores
# description: What happens while the counters or the audit store are down is a choice in config/stores.
package mcp.stores

import data.mcp.limits
import data.mcp.reasons

# METADATA
# title: Calls can be counted
# description: A call that would be charged cannot be counted while the counters are down.
# custom:
#   code: counters_unavailable
#   message: calls cannot be counted at the moment
#   solution: try again in a few seconds; this call was not made
deny contains reasons.because(rego.metadata.chain(), []) if {
	limits.chargeable
	not _may_go_uncounted
	not _counters_up
}

# METADATA
# title: The request can be recorded
# description: No request is answered without its audit record.
# custom:
#   code: audit_unavailable
#   message: requests cannot be recorded at the moment
#   solution: try again in a few seconds; this call was not made
deny contains reasons.because(rego.metadata.chain(), []) if {
	not _may_go_unrecorded
	not _audit_up
}

_counters_up if input.context.counters == "up"

_audit_up if input.context.audit == "up"

_may_go_uncounted if data.config.stores.counters.when_down == "allow"

_may_go_unrecorded if data.config.stores.audit.when_down == "allow"
