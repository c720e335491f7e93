# METADATA
# title: Obligations
# description: What the server has to do with an allowed call and with its result. A tool's row overrides the default.
package mcp.obligations

import data.mcp.methods

# METADATA
# title: The obligations of the call
# description: Only for methods that name a tool, a resource or a prompt, those that complete names of things too.
obligations := [
	{"type": "timeout", "seconds": _settings.timeout_s},
	{"type": "max_items", "value": _settings.max_items},
	{"type": "redact", "fields": _settings.redact},
] if {
	count(methods.method.kinds) > 0
}

obligations := [] if count(methods.method.kinds) == 0

_settings := object.union(
	data.config.obligations.default,
	object.get(data.config.obligations.tool, input.resource.id, {}),
)
