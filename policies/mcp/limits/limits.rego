# METADATA
# title: Rate limits
# description: >-
#   The windows that a call is charged to, and whether the counts after charging are within the limits. The counters
#   only count; every comparison is here.
package mcp.limits

import data.mcp.access
import data.mcp.reasons

# METADATA
# title: The windows this call is charged to
# description: >-
#   None while the counters are down, because nothing can be counted then. A method with a limit of its own is charged to
#   nothing else: a completion uses up no calls. Undefined where the policy data is broken, which denies.
charges := array.concat(for_all, for_tool(input.resource.id, access.entry)) if {
	_counting
	input.resource.type == "tool"
	not data.config.limits.method[input.action.name]
} else := [_of_method] if {
	_counting
	data.config.limits.method[input.action.name]
} else := for_all if {
	_counting
	input.resource.type != "tool"
} else := [] if {
	not _counting
}

# METADATA
# title: The windows every call of the subject is charged to
# description: That of everyone of a tenant together only if config/limits has one.
for_all := _of_everyone_and_user if not data.config.limits.tenant

for_all := array.concat(_of_everyone_and_user, [{
	"id": "tenant",
	"key": concat(":", ["tenant", _tenant]),
	"limit": limit.limit,
	"window_s": limit.window_s,
	"cost": 1,
}]) if {
	limit := data.config.limits.tenant
}

# METADATA
# title: The windows that calls of one tool are charged to besides
# description: Those of the tool's name and of its permission.
for_tool(id, entry) := [charge |
	some name in {id, entry.permission}
	limit := data.config.limits.tool[name]
	charge := object.union(object.remove(limit, ["per"]), {
		"id": concat(":", ["tool", name]),
		"key": _tool_key(name, limit),
		"cost": 1,
	})
]

_of_everyone_and_user := [
	{
		"id": "global",
		"key": "global",
		"limit": data.config.limits.global.limit,
		"window_s": data.config.limits.global.window_s,
		"cost": 1,
	},
	{
		"id": "user",
		"key": concat(":", ["user", urlquery.encode(input.subject.properties.tenant), urlquery.encode(input.subject.id)]),
		"limit": data.config.limits.user.limit,
		"window_s": data.config.limits.user.window_s,
		"cost": 1,
	},
]

_of_method := {
	"id": concat(":", ["method", input.action.name]),
	"key": concat(":", ["method", input.action.name, "user", _tenant, _user]),
	"limit": limit.limit,
	"window_s": limit.window_s,
	"cost": 1,
} if {
	limit := data.config.limits.method[input.action.name]
}

_counting if {
	data.config.methods[input.action.name].charged == true
	input.context.counters == "up"
}

# Where `per` is missing or unknown, everyone shares the window: the strictest reading.
_tool_key(name, limit) := concat(":", ["tool", name, "tenant", _tenant]) if {
	limit.per == "tenant"
} else := concat(":", ["tool", name, "user", _tenant, _user]) if {
	limit.per == "user"
} else := concat(":", ["tool", name])

# Encoded, so that no tenant or user can be named such that it shares a counter with another.
_tenant := urlquery.encode(input.subject.properties.tenant)

_user := urlquery.encode(input.subject.id)

# METADATA
# title: The counts are those of exactly these charges
# description: >-
#   In the same order. Counts of other charges, which a server made by an older answer, are no counts of this call.
counted if [row.charge | some row in _counts] == charges

# METADATA
# title: The counts are numbers within the limits
# description: The count after adding this call may reach the limit, and not pass it. Nothing else than a number is in the range.
within if {
	every row in _counts {
		row.count >= 0
		row.count <= row.charge.limit
	}
}

# METADATA
# title: A limit is used up
# description: An author may add reasons of their own.
# custom:
#   code: rate_limited
#   message: the limit of %d calls in %d seconds is used up (%s)
#   solution: wait for the time given with this answer, then try again
limited contains reasons.because(rego.metadata.chain(), [row.charge.limit, row.charge.window_s, row.charge.id]) if {
	some row in _counts
	row.count > row.charge.limit
}

# METADATA
# title: Milliseconds until all limits that are used up have room again
# description: 0 when none is.
retry_after_ms := max(array.concat([0], [row.reset_ms |
	some row in _counts
	row.count > row.charge.limit
]))

# METADATA
# title: What is left in each window that was counted
quota := [{
	"id": row.charge.id,
	"limit": row.charge.limit,
	"remaining": max([0, row.charge.limit - row.count]),
	"window_s": row.charge.window_s,
	"reset_ms": row.reset_ms,
} |
	some row in _counts
]

default _counts := []

_counts := input.counts
