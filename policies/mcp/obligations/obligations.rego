# METADATA
# title: Obligations
# description: >-
#   What the server has to do with an allowed call and with its result. The numbers of a tool's row stand for those of the
#   default; the fields that it masks are masked besides.
package mcp.obligations

import data.mcp.methods

# METADATA
# title: The obligations of the call
# description: Only for methods that name a tool, a resource or a prompt, those that complete names of things too.
obligations := [
	{"type": "timeout", "seconds": _settings.timeout_s},
	{"type": "max_items", "value": _settings.max_items},
	{"type": "redact", "fields": _masked},
] if {
	count(methods.method.kinds) > 0
}

obligations := [] if count(methods.method.kinds) == 0

_settings := object.union(data.config.obligations.default, _own)

_own := object.get(data.config.obligations.tool, input.resource.id, {})

_masked := array.concat(data.config.obligations.default.redact, [field |
	some field in _own.redact
	not field in data.config.obligations.default.redact
])
