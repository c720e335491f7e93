# METADATA
# title: Stores
# description: config/stores chooses the behaviour while the counters or the audit store are down.
package mcp.stores

import data.mcp.methods
import data.mcp.reasons

# METADATA
# title: The stores that this request needs are up
ok if {
	_recordable
	_countable
}

# METADATA
# title: Calls can be counted
# description: A call that is charged cannot be counted while the counters are down.
# custom:
#   code: counters_unavailable
#   message: calls cannot be counted at the moment
#   solution: try again in a few seconds; this call was not made
why contains reasons.because(rego.metadata.chain(), []) if {
	methods.method
	not _countable
}

# METADATA
# title: The request can be recorded
# description: Every answered request has an audit record.
# custom:
#   code: audit_unavailable
#   message: requests cannot be recorded at the moment
#   solution: try again in a few seconds; this call was not made
why contains reasons.because(rego.metadata.chain(), []) if not _recordable

_recordable if input.context.audit == "up"

_recordable if data.config.stores.audit.when_down == "allow"

_countable if input.context.counters == "up"

_countable if methods.method.charged == false

_countable if data.config.stores.counters.when_down == "allow"
