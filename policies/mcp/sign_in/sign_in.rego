# METADATA
# title: Sign-ins
# description: >-
#   The decision about an attempt to sign in, before the password is checked, and about a token that is not valid. The server
#   charges the windows, queries again with the counts, and gives the charges back when the sign-in succeeds: only failures
#   stay in the windows.
# schemas:
#   - input: schema.sign_in_input.schema
#   - data.config.sign_in: schema.sign_in.schema
package mcp.sign_in

import data.mcp.decision
import data.mcp.network
import data.mcp.reasons

_version := 2

# METADATA
# title: The decision about an attempt
# description: >-
#   The answer has the form of `mcp.decision.authorize`. Effects: `allow`, `count`, `limited` and `deny`. An attempt that cannot
#   be counted is denied.
# entrypoint: true
authorize := _answer("allow", [], charges, 0) if {
	_permitted
	_counted
	_within
} else := _answer("count", [], charges, 0) if {
	_permitted
	not _counted
} else := _answer("limited", _limited, [], _retry_after_ms) if {
	_permitted
	_counted
	count(_limited) > 0
} else := _answer("deny", [reason | some reason in why], [], 0) if {
	why != set()
} else := _answer("deny", [_undecided], [], 0)

# METADATA
# title: The windows that an attempt is charged to
charges := [_of_user, _of_address] if {
	input.attempt.method == "password"
	trim_space(input.attempt.user) != ""
} else := [_of_address] if {
	input.attempt.method == "token"
}

# METADATA
# title: The address is on the allowlist
# custom:
#   code: address_not_allowed
#   message: sign-ins from this address are not accepted
#   solution: connect from a listed network, or ask an administrator to add yours to the policy data config/network
why contains reasons.because(rego.metadata.chain(), []) if not network.listed

# METADATA
# title: Failures can be counted
# custom:
#   code: counters_unavailable
#   message: sign-ins cannot be counted at the moment
#   solution: try again in a few seconds
why contains reasons.because(rego.metadata.chain(), []) if not input.context.counters == "up"

# METADATA
# title: The sign-in can be recorded
# custom:
#   code: audit_unavailable
#   message: sign-ins cannot be recorded at the moment
#   solution: try again in a few seconds
why contains reasons.because(rego.metadata.chain(), []) if not _recordable

_permitted if {
	input.version == _version
	network.listed
	input.context.counters == "up"
	_recordable
	count(charges) > 0
}

_recordable if input.context.audit == "up"

_recordable if data.config.stores.audit.when_down == "allow"

_of_user := {
	"id": "sign_in:user",
	# Some 20 bits of a hash: whoever tries many names makes a limited number of keys in Redis. Two users that share a key also
	# share the limit, which is improbable and makes it stricter.
	"key": concat(":", ["sign_in", "user", substring(crypto.sha256(input.attempt.user), 0, 5)]),
	"limit": data.config.sign_in.password.user.limit,
	"window_s": data.config.sign_in.password.user.window_s,
	"cost": 1,
}

_of_address := {
	"id": concat(":", [input.attempt.method, "address"]),
	"key": concat(":", ["sign_in", input.attempt.method, "address", _network]),
	"limit": data.config.sign_in[input.attempt.method].address.limit,
	"window_s": data.config.sign_in[input.attempt.method].address.window_s,
	"cost": 1,
}

# Whoever has one IPv6 address usually has the 64 bits below its network.
_network := block if {
	contains(input.context.ip, ":")
	some block in net.cidr_merge([concat("/", [input.context.ip, "64"])])
} else := input.context.ip

_counted if [row.charge | some row in input.counts] == charges

_within if {
	every row in input.counts {
		row.count >= 0
		row.count <= row.charge.limit
	}
}

# METADATA
# title: Too many failures
# custom:
#   code: rate_limited
#   message: too many sign-ins have failed; the limit is %d in %d seconds
#   solution: wait for the time given with this answer, then try again
limited contains reasons.because(rego.metadata.chain(), [row.charge.limit, row.charge.window_s]) if {
	some row in input.counts
	row.count > row.charge.limit
}

_limited := [reason | some reason in limited]

_retry_after_ms := max([row.reset_ms |
	some row in input.counts
	row.count > row.charge.limit
])

_undecided := {
	"code": "undecided",
	"message": "the policy could not decide",
	"rule": "mcp.sign_in.undecided",
	"solution": "ask an administrator to check the policy data",
}

_answer(effect, because, charged, retry_after_ms) := {
	"version": _version,
	"effect": effect,
	"reasons": because,
	"revision": decision.revision,
	"charges": charged,
	"obligations": [],
	"retry_after_ms": retry_after_ms,
	"quota": [],
}
