# METADATA
# title: Decision protocol, version 2
# description: The documents that the server queries. system.authz refuses queries of documents outside of this package and mcp.batch.
package mcp.decision

import data.mcp.access
import data.mcp.audit
import data.mcp.issuers
import data.mcp.limits
import data.mcp.lockdown
import data.mcp.methods
import data.mcp.network
import data.mcp.obligations
import data.mcp.reasons
import data.mcp.request
import data.mcp.scopes
import data.mcp.stores
import data.mcp.subject
import data.mcp.tenants

_version := 2

# METADATA
# title: The decision about a request
# description: >-
#   `allow`: every package accepts the request, no `deny` rule holds, and the counts in the input belong to exactly these
#   charges and are within their limits. `count`: allowed so far; add the charges to the counters and query again with the
#   counts. `limited`: a limit is exceeded. `deny`: everything else, including invalid policy data; `missing_scope` is a scope
#   with which the request would be allowed, or empty. If the final effect is not `allow`, the server must refund the charges.
# entrypoint: true
authorize := {
	"version": _version,
	"effect": "allow",
	"reasons": [],
	"revision": revision,
	"charges": limits.charges,
	"obligations": obligations.obligations,
	"retry_after_ms": 0,
	"quota": limits.quota,
} if {
	_allowed
	limits.counted
	limits.within
	limits.limited == set()
} else := {
	"version": _version,
	"effect": "count",
	"reasons": [],
	"revision": revision,
	"charges": limits.charges,
	"obligations": [],
	"retry_after_ms": 0,
	"quota": [],
} if {
	_allowed
	not limits.counted
} else := {
	"version": _version,
	"effect": "limited",
	"reasons": [reason | some reason in limits.limited],
	"revision": revision,
	"charges": [],
	"obligations": [],
	"retry_after_ms": limits.retry_after_ms,
	"quota": limits.quota,
} if {
	_allowed
	limits.counted
	limits.limited != set()
} else := {
	"version": _version,
	"effect": "deny",
	"reasons": _reasons,
	"missing_scope": _missing_scope,
	"revision": revision,
	"charges": [],
	"obligations": [],
	"retry_after_ms": 0,
	"quota": [],
}

# METADATA
# title: The tools, resources and prompts that the subject can see
# description: Exactly those for which some arguments could be allowed, sorted by id.
# entrypoint: true
visible := {
	"version": _version,
	"revision": revision,
	"tools": [id |
		_sees("tools/call")
		some id, entry in data.config.catalog.tools
		access.reachable(entry)
	],
	"resources": [id |
		_sees("resources/read")
		some id, entry in data.config.catalog.resources
		access.reachable(entry)
	],
	"prompts": [id |
		_sees("prompts/get")
		some id, entry in data.config.catalog.prompts
		access.reachable(entry)
	],
}

# METADATA
# title: The subject's entitlements
# description: >-
#   The tools, resources and prompts that the subject can see, the namespaces of each tool, and the rate limits that apply.
#   `charges` lists the windows to read; `quota` is the remainder of each window whose count is in the input. This query
#   charges nothing.
# entrypoint: true
entitlements := {
	"version": _version,
	"revision": revision,
	"roles": [role | some role in subject.roles],
	"tools": [tool |
		some id in visible.tools
		entry := data.config.catalog.tools[id]
		tool := {
			"id": id,
			"namespaces": access.namespaces(entry),
			"other_namespaces": access.in_other_namespaces(entry),
			"all_namespaces": access.everywhere(entry),
			"limits": [charge.id | some charge in array.concat(limits.for_all, limits.for_tool(id, entry))],
		}
	],
	"resources": visible.resources,
	"prompts": visible.prompts,
	"charges": _windows,
	"quota": limits.quota,
}

_windows := array.concat(limits.for_all, [charge | some charge in _windows_of_tools])

_windows_of_tools contains charge if {
	some id in visible.tools
	some charge in limits.for_tool(id, data.config.catalog.tools[id])
}

# METADATA
# title: The policy passes its self-test
# description: >-
#   The query has no input. Its answer also has the scopes of config/scopes, and the least scope with which the tools can be
#   listed, for clients that sign in. Readiness checks use it, as does publishing, before and after. A subject with every role may list
#   the tools and call one of them. A subject without roles may not call a tool that does not exist. The time is noon on a
#   working day.
# entrypoint: true
canary := {
	"version": _version,
	"allow_ok": _canary_allows,
	"deny_ok": _canary_denies,
	"scopes": sort(object.keys(object.get(data.config, "scopes", {}))),
	"initial_scope": _initial_scope,
	"revision": revision,
}

# METADATA
# title: The published revision
# description: The revision in the manifest of the signed bundle; `unversioned` if the policies were loaded without a bundle.
revision := data.system.bundles.mcp.manifest.revision

default revision := "unversioned"

_allowed if {
	_identified
	methods.ok
	access.ok
	audit.ok
	stores.ok
}

# The subject's checks, which do not depend on the method or the resource.
_identified if {
	request.ok
	subject.ok
	issuers.ok
	tenants.ok
	network.ok
	lockdown.ok
	not _denied
}

# A `deny` rule in any package below data.mcp denies. The product contains none: `deny` is for policy authors.
_denied if {
	some package_name
	data.mcp[package_name].deny != set()
}

_sees(method) if {
	_identified
	methods.permitted(method)
}

_reasons := [reason | some reason in _step_up] if {
	_missing_scope != ""
} else := [reason | some reason in _all_reasons] if {
	_all_reasons != set()
} else := [{
	"code": "undecided",
	"message": "the policy could not decide",
	"rule": "mcp.decision.undecided",
	"solution": "ask an administrator to check the policy data",
}]

# METADATA
# title: The token has the scope
# description: >-
#   The request would be allowed with one more scope. This reason stands alone: what the subject's roles allow is not hidden
#   from it.
# custom:
#   code: scope_missing
#   message: the token lacks the scope %s
#   solution: ask the authorization server for a token with this scope
_step_up contains reasons.because(rego.metadata.chain(), [_missing_scope])

# The least scope with which the request would be allowed.
default _missing_scope := ""

_missing_scope := scopes.least({scope |
	scopes.limited
	some scope, _ in data.config.scopes
	_allowed with input.subject.properties.scopes as array.concat(input.subject.properties.scopes, [scope])
})

_all_reasons := {reason |
	some why in [
		request.why, subject.why, issuers.why, tenants.why, network.why, lockdown.why,
		methods.why, access.why, audit.why, stores.why,
	]
	some reason in why
} | {reason |
	some package_name
	some reason in data.mcp[package_name].deny
}

default _initial_scope := ""

_initial_scope := scopes.least_for(data.config.methods["tools/list"].permission)

default _canary_allows := false

_canary_allows if {
	some caller in _canary_callers
	_canary_permitted(caller, "tools/list", "server", "server")
	some id, entry in data.config.catalog.tools
	_anywhere(entry.scope)
	_canary_permitted(caller, "tools/call", "tool", id)
}

_canary_permitted(caller, method, kind, id) if {
	request_without_counts := _canary_request(caller, [role | some role, _ in data.config.roles], method, kind, id)
	first := authorize with input as request_without_counts
	counts := [{"charge": charge, "count": 1, "reset_ms": 0} | some charge in first.charges]
	answer := authorize with input as object.union(request_without_counts, {"counts": counts})
	answer.effect == "allow"
}

# Tools whose arguments name no place.
_anywhere(scope) if {
	not scope.cluster_wide
	every place in ["namespace", "cluster", "asset"] {
		scope[place] == null
	}
}

default _canary_denies := false

_canary_denies if {
	some caller in _canary_callers
	answer := authorize with input as _canary_request(caller, [], "tools/call", "tool", "canary:absent")
	answer.effect == "deny"
	some reason in answer.reasons
	reason.code == "not_available"
}

# A complete input, as the server sends it.
_canary_request(caller, roles, method, kind, id) := {
	"version": 2,
	"subject": {
		"type": "user",
		"id": "canary",
		"properties": {
			"tenant": caller.tenant,
			"roles": roles,
			"groups": [],
			"scopes": [scope | some scope, _ in data.config.scopes],
			"token_id": "canary",
			"issuer": caller.issuer,
			"client_id": "",
			"actor": "",
			"networks": [],
		},
	},
	"action": {"name": method, "properties": {"arguments": {}, "withheld": []}},
	"resource": {"type": kind, "id": id, "properties": {}},
	"context": {
		"ip": _canary_address,
		"time": "2026-01-07T12:00:00Z",
		"node": "canary",
		"request_id": "canary",
		"transport": "mcp",
		"counters": "up",
		"audit": "up",
		"client_info": {"name": "", "version": ""},
	},
}

# An issuer, and a tenant that it may assert.
_canary_callers contains {"issuer": issuer, "tenant": tenant} if {
	some issuer, row in data.config.issuers
	some name in row.tenants
	tenant := object.get({"*": _canary_tenant}, name, name)
}

# The canary uses the first served tenant and the first allowed network, so that both lists accept it.
_canary_tenant := array.concat(
	[tenant | some tenant in data.config.tenants.served; not tenant in data.config.tenants.suspended],
	["canary"],
)[0]

_canary_address := split(array.concat(data.config.network.allow, ["127.0.0.1/32"])[0], "/")[0]
