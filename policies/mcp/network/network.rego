# METADATA
# title: Network addresses
# description: The allowlist of CIDR blocks, and the blocks of a credential. An empty list allows every address.
package mcp.network

import data.mcp.reasons

# METADATA
# title: The address is accepted
ok if {
	listed
	_of_credential
}

# METADATA
# title: The address is on the allowlist
listed if data.config.network.allow == []

listed if _inside(data.config.network.allow)

# METADATA
# title: The address is on the allowlist
# description: The client's canonical address lies in one of the listed blocks.
# custom:
#   code: address_not_allowed
#   message: requests from this address are not accepted
#   solution: connect from a listed network, or ask an administrator to add yours to the policy data config/network
why contains reasons.because(rego.metadata.chain(), []) if not listed

# METADATA
# title: The credential is accepted from the address
# description: An API key may be bound to networks.
# custom:
#   code: credential_not_allowed_from_address
#   message: the credential is not accepted from the network of this address
#   solution: connect from a network of the credential, or ask its administrator for another one
why contains reasons.because(rego.metadata.chain(), []) if not _of_credential

_of_credential if input.subject.properties.networks == []

_of_credential if _inside(input.subject.properties.networks)

_inside(blocks) if {
	_is_address(input.context.ip)
	some block in blocks
	net.cidr_contains(block, input.context.ip)
}

# net.cidr_contains fails on a value that is not an address, and a failing builtin fails the whole query.
_is_address(text) if {
	is_string(text)
	net.cidr_is_valid(concat("/", [text, "0"]))
}
