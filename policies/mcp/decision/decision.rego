# METADATA
# title: Decision protocol, version 1
# description: The five documents which the server asks for. Nothing else of this policy is reachable from outside.
package mcp.decision

import data.mcp.access
import data.mcp.limits
import data.mcp.methods
import data.mcp.network
import data.mcp.obligations
import data.mcp.stores
import data.mcp.subject
import data.mcp.tenants

_version := 1

# METADATA
# title: May this request be made
# description: >-
#   Asked before anything is counted or done. Allowed is what every package finds to be in order and none denies;
#   whatever is not allowed is refused, with the reasons of all of them.
# entrypoint: true
decide := {
	"version": _version,
	"effect": "allow",
	"reasons": [],
	"revision": revision,
	"charges": limits.charges,
	"obligations": obligations.obligations,
} if {
	_allowed
}

decide := {
	"version": _version,
	"effect": "deny",
	"reasons": [reason | some reason in _refusals],
	"revision": revision,
	"charges": [],
	"obligations": [],
} if {
	not _allowed
}

# Answered when the policy data is broken: anything but a complete answer above is a refusal.
default decide := {
	"version": 1,
	"effect": "deny",
	"reasons": [{
		"code": "undecided",
		"message": "the policy could not decide",
		"rule": "mcp.decision.undecided",
		"solution": "ask an administrator to check the policy data",
	}],
	"revision": "unknown",
	"charges": [],
	"obligations": [],
}

# METADATA
# title: May the counted request be made
# description: Asked with the counts after charging. `limited` means that the charge is to be given back.
# entrypoint: true
admit := {
	"version": _version,
	"effect": _admission,
	"reasons": [reason | some reason in _objections],
	"revision": revision,
	"retry_after_ms": limits.retry_after_ms,
	"quota": limits.quota,
} if {
	_allowed
}

admit := {
	"version": _version,
	"effect": "deny",
	"reasons": decide.reasons,
	"revision": revision,
	"retry_after_ms": 0,
	"quota": [],
} if {
	not _allowed
}

# METADATA
# title: What the subject can see
# description: Exactly the tools, resources and prompts for which some arguments could be allowed, sorted.
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
#   `charges` lists the windows to count; `quota` is the rest of each window whose count is in the input. The query charges nothing.
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
			"other_namespaces": access.elsewhere(entry),
			"all_namespaces": access.everywhere(entry),
			"limits": [charge.id | some charge in array.concat(limits.for_all, limits.for_tool(id, entry))],
		}
	],
	"resources": visible.resources,
	"prompts": visible.prompts,
	"charges": _windows,
	"quota": limits.left(_windows),
}

_windows := array.concat(limits.for_all, [charge | some charge in _windows_of_tools])

_windows_of_tools contains charge if {
	some id in visible.tools
	some charge in limits.for_tool(id, data.config.catalog.tools[id])
}

# METADATA
# title: The policy tells right from wrong
# description: >-
#   Asked without input, by readiness checks and before and after publishing. Somebody with every role may list the tools and
#   call one of them; somebody without a role may not call a tool that does not exist. Its time is noon of a working day.
# entrypoint: true
canary := {
	"version": _version,
	"allow_ok": _canary_allows,
	"deny_ok": _canary_denies,
	"revision": revision,
}

# METADATA
# title: The published revision
# description: From the manifest of the signed bundle; `unversioned` when the policies were loaded without one.
revision := data.system.bundles.mcp.manifest.revision

default revision := "unversioned"

_allowed if {
	_known
	methods.ok
	access.ok
	stores.ok
	count(_refusals) == 0
}

# The subject, wherever it wants to go.
_known if {
	subject.ok
	tenants.ok
	network.ok
	count(_unwelcome) == 0
}

_unwelcome := (subject.deny | tenants.deny) | network.deny

_refusals := ((_unwelcome | methods.deny) | access.deny) | stores.deny

_sees(method) if {
	_known
	methods.permitted(method)
}

default _admission := "deny"

_admission := "allow" if {
	limits.within
	count(_objections) == 0
}

_admission := "limited" if {
	limits.counted
	count(limits.deny) == 0
	count(limits.limited) > 0
}

_objections := limits.deny | limits.limited

default _canary_allows := false

_canary_allows if {
	_canary_permitted("tools/list", "server", "server")
	some id, entry in data.config.catalog.tools
	_anywhere(entry.scope)
	_canary_permitted("tools/call", "tool", id)
}

_canary_permitted(method, kind, id) if {
	answer := decide with input as _canary_request([role | some role, _ in data.config.roles], method, kind, id)
	answer.effect == "allow"
}

# No argument says where the call works.
_anywhere(scope) if {
	not scope.cluster_wide
	every place in ["namespace", "cluster", "asset"] {
		scope[place] == null
	}
}

default _canary_denies := false

_canary_denies if {
	answer := decide with input as _canary_request([], "tools/call", "tool", "canary:absent")
	answer.effect == "deny"
	some reason in answer.reasons
	reason.code == "not_available"
}

# A whole document, as the server sends it.
_canary_request(roles, method, kind, id) := {
	"version": 1,
	"subject": {
		"type": "user",
		"id": "canary",
		"properties": {
			"tenant": _canary_tenant,
			"roles": roles,
			"groups": [],
			"scopes": [],
			"token_id": "canary",
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
	},
}

# The canary speaks for the first tenant served and from the first network allowed, so that neither list trips it.
_canary_tenant := array.concat(
	[tenant | some tenant in data.config.tenants.served; not tenant in data.config.tenants.suspended],
	["canary"],
)[0]

_canary_address := split(array.concat(data.config.network.allow, ["127.0.0.1/32"])[0], "/")[0]
