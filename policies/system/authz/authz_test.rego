package system.authz_test

import data.system.authz

_strict := {"strict-builtin-errors": ["true"]}

_request(method, path, params) := {"method": method, "path": path, "params": params}

test_the_five_documents_may_be_asked_for if {
	every name in ["authorize", "visible", "entitlements", "canary"] {
		authz.allow with input as _request("POST", ["v1", "data", "mcp", "decision", name], _strict)
	}
}

test_several_questions_may_be_asked_at_once if {
	authz.allow with input as _request("POST", ["v1", "data", "mcp", "batch", "answers"], _strict)
	not authz.allow with input as _request("POST", ["v1", "data", "mcp", "batch"], _strict)
	not authz.allow with input as _request("GET", ["v1", "data", "mcp", "batch", "answers"], _strict)
	not authz.allow with input as _request("POST", ["v1", "data", "mcp", "batch", "answers"], {})
}

test_a_sign_in_may_be_asked_about if {
	authz.allow with input as _request("POST", ["v1", "data", "mcp", "sign_in", "authorize"], _strict)
	not authz.allow with input as _request("POST", ["v1", "data", "mcp", "sign_in", "authorize"], {})
	not authz.allow with input as _request("POST", ["v1", "data", "mcp", "sign_in", "charges"], _strict)
}

test_the_health_check_is_open if authz.allow with input as _request("GET", ["health"], {})

test_every_other_path_is_closed if {
	every path in [
		["v1", "data"],
		["v1", "data", "mcp"],
		["v1", "data", "mcp", "decision"],
		["v1", "data", "mcp", "decision", "authorize", "reasons"],
		["v1", "data", "mcp", "decision", "revision"],
		["v1", "data", "mcp", "subject", "may"],
		["v1", "data", "config", "roles"],
		["v1", "policies", "x"],
		["v1", "query"],
		["v1", "compile"],
		[""],
		[],
	] {
		not authz.allow with input as _request("POST", path, _strict)
	}
}

test_every_other_method_is_closed if {
	every method in ["GET", "PUT", "PATCH", "DELETE", "HEAD", "post"] {
		not authz.allow with input as _request(method, ["v1", "data", "mcp", "decision", "authorize"], _strict)
	}
}

test_a_question_must_be_strict_and_ask_for_nothing_else if {
	every params in [
		{},
		{"strict-builtin-errors": ["false"]},
		{"strict-builtin-errors": ["true", "false"]},
		{"strict-builtin-errors": ["true"], "explain": ["full"]},
		{"strict-builtin-errors": ["true"], "instrument": ["true"]},
	] {
		not authz.allow with input as _request("POST", ["v1", "data", "mcp", "decision", "authorize"], params)
	}
}
