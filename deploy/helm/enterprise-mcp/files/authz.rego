# METADATA
# title: Authorization of requests to OPA
# description: >-
#   OPA's own authorization of requests to its socket (`--authorization=basic`). It allows the documents of the decision
#   protocol, alone or several in one query, with strict builtin errors, and the health check. It is installed with the
#   configuration of OPA and not in the bundle, so that it applies from the start of OPA.
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
	input.method == "POST"
	input.path == ["v1", "data", "mcp", "sign_in", "authorize"]
	_strict
}

allow if {
	input.method == "GET"
	input.path == ["health"]
}

# Other parameters would explain, instrument or weaken the decision.
_strict if {
	object.keys(input.params) == {"strict-builtin-errors"}
	input.params["strict-builtin-errors"] == ["true"]
}
