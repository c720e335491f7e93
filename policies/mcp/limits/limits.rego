# METADATA
# title: Rate limits
# description: >-
#   The windows that a call is charged to, and whether the counts after charging are within the limits. Redis only counts; all
#   comparisons are in this package.
package mcp.limits

import data.mcp.access
import data.mcp.agents
import data.mcp.reasons

# METADATA
# title: The windows this call is charged to
# description: >-
#   Empty while the counters are down, because nothing can be counted then. A method with a limit of its own is charged only
#   to that limit: completions do not use up the limits of calls. Undefined if the policy data is invalid, which denies.
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
# title: The windows that every call of the subject is charged to
# description: Windows of the whole tenant and of agents are included only if config/limits has limits for them.
for_all := array.concat(array.concat(_of_everyone_and_user, _of_the_tenant), _of_agents)

_of_the_tenant := [] if not data.config.limits.tenant

_of_the_tenant := [{
	"id": "tenant",
	"key": concat(":", ["tenant", _tenant]),
	"limit": limit.limit,
	"window_s": limit.window_s,
	"cost": 1,
}] if {
	limit := data.config.limits.tenant
}

_of_agents := [] if not data.config.limits.agent

_of_agents := [charge |
	some agent in agents.present
	row := agents.row(data.config.limits.agent, agent)
	limit := data.config.limits.agent[row]
	charge := {
		"id": concat(":", ["agent", agent.name]),
		"key": _agent_key(row, agent),
		"limit": limit.limit,
		"window_s": limit.window_s,
		"cost": 1,
	}
] if {
	data.config.limits.agent
}

# METADATA
# title: The additional windows that calls of one tool are charged to
# description: The windows of the tool's name and of its permission.
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

# If `per` is missing or unknown, all users share the window, which is the strictest interpretation.
_tool_key(name, limit) := concat(":", ["tool", name, "tenant", _tenant]) if {
	limit.per == "tenant"
} else := concat(":", ["tool", name, "user", _tenant, _user]) if {
	limit.per == "user"
} else := concat(":", ["tool", name])

# Every client may report every name. A window of the user and the row, so that nobody uses up the limit of others or makes
# any number of windows.
_agent_key(row, agent) := concat(":", ["agent", urlquery.encode(row), "user", _tenant, _user]) if {
	agent.reported
} else := concat(":", ["agent", urlquery.encode(agent.name)])

# Encoded, so that a tenant's or user's name cannot select the counter of another one.
_tenant := urlquery.encode(input.subject.properties.tenant)

_user := urlquery.encode(input.subject.id)

# METADATA
# title: The counts belong to exactly these charges
# description: >-
#   The order must match too. Counts of other charges, which a server took from an older answer, do not count for this call.
counted if [row.charge | some row in _counts] == charges

# METADATA
# title: The counts are numbers within the limits
# description: The count includes this call. It may reach the limit and must not exceed it. A value that is not a number fails.
within if {
	every row in _counts {
		row.count >= 0
		row.count <= row.charge.limit
	}
}

# METADATA
# title: A limit is used up
# description: Policy authors can add reasons of their own.
# custom:
#   code: rate_limited
#   message: the limit of %d calls in %d seconds is used up (%s)
#   solution: wait for the time given with this answer, then try again
limited contains reasons.because(rego.metadata.chain(), [row.charge.limit, row.charge.window_s, row.charge.id]) if {
	some row in _counts
	row.count > row.charge.limit
}

# METADATA
# title: Milliseconds until all used-up limits have room again
# description: 0 if no limit is used up.
retry_after_ms := max(array.concat([0], [row.reset_ms |
	some row in _counts
	row.count > row.charge.limit
]))

# METADATA
# title: The remainder of each counted window
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
