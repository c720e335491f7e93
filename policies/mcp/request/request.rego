# METADATA
# title: The request
# description: The input must have this protocol version and every part that the rules use. A missing part never passes a rule.
package mcp.request

import data.mcp.reasons

# METADATA
# title: The request is complete
ok if {
	input.version == 2
	is_string(input.action.name)
	is_string(input.resource.type)
	is_string(input.resource.id)
	is_object(input.resource.properties)
	is_string(input.context.ip)
	is_array(input.subject.properties.roles)
	is_array(input.subject.properties.groups)
	is_array(input.subject.properties.scopes)
	is_string(input.subject.properties.issuer)
	is_string(input.subject.properties.client_id)
	is_string(input.subject.properties.actor)
	is_array(input.subject.properties.networks)
}

# METADATA
# title: The request has the version of this policy
# description: The same field may have another meaning in another version of the protocol.
# custom:
#   code: unsupported_version
#   message: this policy does not support the protocol version of the request
#   solution: publish the policies that belong to the installed server version
why contains reasons.because(rego.metadata.chain(), []) if not input.version == 2

# METADATA
# title: The request has all its parts
# description: Lists are lists, objects are objects, and the client has an address.
# custom:
#   code: request_incomplete
#   message: the request lacks a part, or a part has the wrong type
#   solution: publish the policies that belong to the installed server version
why contains reasons.because(rego.metadata.chain(), []) if {
	input.version == 2
	not ok
}
