# METADATA
# title: Rate limits
# description: >-
#   Which windows a call is charged to (`charges`, for decide) and whether the counts after charging are within the
#   limits (for admit). The counters only count; every comparison is here.
package mcp.limits

import data.mcp.access
import data.mcp.methods
import data.mcp.reasons

# METADATA
# title: The windows this call is charged to
# description: >-
#   None while the counters are down, because nothing can be counted then. A method with a limit of its own is charged to
#   nothing else: what is typed for a completion uses up no calls.
charges := [_of_method] if _counting

charges := array.concat(for_all, [charge |
	input.resource.type == "tool"
	some charge in for_tool(input.resource.id, access.entry)
]) if {
	_counting
	not data.config.limits.method[input.action.name]
}

charges := [] if not _counting

# METADATA
# title: The windows every call of the subject is charged to
# description: That of everyone of a tenant together only if config/limits has one.
for_all := array.concat(
	[
		object.union(data.config.limits.global, {"id": "global", "key": "global", "cost": 1}),
		object.union(data.config.limits.user, {"id": "user", "key": concat(":", ["user", _tenant, _user]), "cost": 1}),
	],
	[object.union(limit, {"id": "tenant", "key": concat(":", ["tenant", _tenant]), "cost": 1}) |
		limit := data.config.limits.tenant
	],
)

# METADATA
# title: The windows that calls of one tool are charged to besides
# description: Those of the tool's name and of its permission.
for_tool(id, entry) := [charge |
	some name in {id, entry.permission}
	limit := data.config.limits.tool[name]
	charge := {
		"id": concat(":", ["tool", name]),
		"key": _tool_key(name, limit.per),
		"limit": limit.limit,
		"window_s": limit.window_s,
		"cost": 1,
	}
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
	methods.method.charged == true
	input.context.counters == "up"
}

_tool_key(name, "everyone") := concat(":", ["tool", name])

_tool_key(name, "tenant") := concat(":", ["tool", name, "tenant", _tenant])

_tool_key(name, "user") := concat(":", ["tool", name, "user", _tenant, _user])

# Encoded, so that no tenant or user can be named such that it shares a counter with another.
_tenant := urlquery.encode(input.subject.properties.tenant)

_user := urlquery.encode(input.subject.id)

# METADATA
# title: Every charge was counted
counted if {
	every charge in charges {
		_rows(charge) != []
	}
}

# METADATA
# title: Every charge was counted, and none beyond its limit
within if {
	every charge in charges {
		_count(charge) <= charge.limit
	}
}

# METADATA
# title: Every charge was counted
# description: A charge for which no count came back was not made, and cannot be admitted.
# custom:
#   code: count_missing
#   message: the call was not counted
#   solution: try again; this call was not made
deny contains reasons.because(rego.metadata.chain(), []) if not counted

# METADATA
# title: The counts are within the limits
# description: The count after adding this call may reach the limit, and not pass it.
# custom:
#   code: rate_limited
#   message: the limit of %d calls in %d seconds is used up (%s)
#   solution: wait for the time given with this answer, then try again
limited contains reasons.because(rego.metadata.chain(), [charge.limit, charge.window_s, charge.id]) if {
	some charge in charges
	_count(charge) > charge.limit
}

# METADATA
# title: Milliseconds until all limits that are used up have room again
# description: 0 when none is.
retry_after_ms := 0 if within

retry_after_ms := max(array.concat([0], [_reset_ms(charge) |
	some charge in charges
	_count(charge) > charge.limit
])) if {
	not within
}

# METADATA
# title: What is left in each window that was counted
quota := left(charges)

# METADATA
# title: What is left in each of these windows
# description: A window for which no count came back is left out.
left(windows) := [window |
	some charge in windows
	window := {
		"id": charge.id,
		"limit": charge.limit,
		"remaining": max([0, charge.limit - _count(charge)]),
		"window_s": charge.window_s,
		"reset_ms": _reset_ms(charge),
	}
]

_reset_ms(charge) := max([row.reset_ms | some row in _rows(charge)])

_count(charge) := max([row.count | some row in _rows(charge)])

_rows(charge) := [row |
	some row in input.counts
	row.id == charge.id
	row.key == charge.key
	is_number(row.count)
	is_number(row.reset_ms)
]
