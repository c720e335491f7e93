# METADATA
# title: Obligations
# description: >-
#   Obligations of the server for an allowed call and its result. The numbers in a tool's row replace those of the default. The
#   masked fields in a tool's row are added to those of the default.
package mcp.obligations

import data.mcp.methods

# METADATA
# title: The obligations of the call
# description: Only for methods that name a tool, a resource or a prompt, including completion of their arguments.
obligations := [
	{"type": "timeout", "seconds": data.config.obligations.default.timeout_s},
	{"type": "max_items", "value": data.config.obligations.default.max_items},
	{"type": "redact", "fields": data.config.obligations.default.redact},
] if {
	methods.method.kinds != []
	not data.config.obligations.tool[input.resource.id]
}

obligations := [
	{"type": "timeout", "seconds": settings.timeout_s},
	{"type": "max_items", "value": settings.max_items},
	{"type": "redact", "fields": _masked},
] if {
	methods.method.kinds != []
	settings := object.union(data.config.obligations.default, data.config.obligations.tool[input.resource.id])
}

obligations := [] if methods.method.kinds == []

_masked := array.concat(data.config.obligations.default.redact, [field |
	some field in data.config.obligations.tool[input.resource.id].redact
	not field in data.config.obligations.default.redact
])
