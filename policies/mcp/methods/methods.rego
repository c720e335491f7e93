# METADATA
# title: Methods
# description: The row of a method in config/methods decides about it. Other methods are refused.
package mcp.methods

import data.mcp.reasons
import data.mcp.subject

# METADATA
# title: The row of the requested method
method := data.config.methods[input.action.name]

# METADATA
# title: The method is known and permitted
ok if permitted(input.action.name)

# METADATA
# title: The subject may use a method
# description: A method whose permission is null is available to every identified subject.
permitted(name) if data.config.methods[name].permission == null

permitted(name) if {
	permission := data.config.methods[name].permission
	permission != null
	subject.may(permission)
}

# METADATA
# title: The method is known
# description: A method without a row in the policy data is refused for every subject.
# custom:
#   code: method_unknown
#   message: this method is not offered
#   solution: use a method that the server announces
why contains reasons.because(rego.metadata.chain(), []) if not method

# METADATA
# title: The method is permitted
# description: One of the subject's roles holds the permission of the method.
# custom:
#   code: method_not_permitted
#   message: your roles do not permit this method
#   solution: ask an administrator for a role that permits it
why contains reasons.because(rego.metadata.chain(), []) if {
	method
	not ok
}
