# METADATA
# title: Who may ask OPA for what
# description: >-
#   OPA's own gate for its socket (`--authorization=basic`): the four documents of the decision protocol, alone or
#   several in one query, strictly evaluated, and the health check. It is installed beside the configuration, not in the bundle, so that it holds from the first moment.
package system.authz

default allow := false

allow if {
	input.method == "POST"
	count(input.path) == 5
	array.slice(input.path, 0, 4) == ["v1", "data", "mcp", "decision"]
	input.path[4] in {"authorize", "visible", "entitlements", "canary"}
	_strict
}

allow if {
	input.method == "POST"
	input.path == ["v1", "data", "mcp", "batch", "answers"]
	_strict
}

allow if {
	input.method == "GET"
	input.path == ["health"]
}

# Other parameters would explain, instrument or relax the decision.
_strict if {
	object.keys(input.params) == {"strict-builtin-errors"}
	input.params["strict-builtin-errors"] == ["true"]
}
