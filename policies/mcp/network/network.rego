# METADATA
# title: Network addresses
# description: The allowlist of CIDR blocks. An empty list allows every address.
package mcp.network

import data.mcp.reasons

# METADATA
# title: The address is on the allowlist
ok if data.config.network.allow == []

ok if {
	_is_address(input.context.ip)
	some block in data.config.network.allow
	net.cidr_contains(block, input.context.ip)
}

# METADATA
# title: The address is on the allowlist
# description: The client's canonical address lies in one of the listed blocks.
# custom:
#   code: address_not_allowed
#   message: requests from this address are not accepted
#   solution: connect from a listed network, or ask an administrator to add yours to the policy data config/network
why contains reasons.because(rego.metadata.chain(), []) if not ok

# net.cidr_contains fails on a value that is not an address, and a failing builtin fails the whole query.
_is_address(text) if {
	is_string(text)
	net.cidr_is_valid(concat("/", [text, "0"]))
}
