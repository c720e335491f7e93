package mcp.stores_test

import data.fixtures
import data.mcp.stores

_codes(method, context, choices) := codes if {
	request := fixtures.but(fixtures.request(["mcp:viewer"], method), {"context": context})
	config := object.union(fixtures.config, {"stores": choices})
	reasons := stores.why with input as request with data.config as config
	ok := count(reasons) == 0
	ok == _ok(request, config)
	codes := {reason.code | some reason in reasons}
}

_ok(request, config) if stores.ok with input as request with data.config as config

_ok(request, config) := false if not stores.ok with input as request with data.config as config

test_nothing_is_refused_while_the_stores_are_up if _codes("tools/call", {}, {}) == set()

test_a_charged_call_is_refused_while_the_counters_are_down if {
	_codes("tools/call", {"counters": "down"}, {}) == {"counters_unavailable"}
}

test_a_listing_is_answered_while_the_counters_are_down if _codes("tools/list", {"counters": "down"}, {}) == set()

test_every_request_is_refused_while_the_audit_store_is_down if {
	_codes("tools/call", {"audit": "down"}, {}) == {"audit_unavailable"}
	_codes("ping", {"audit": "down"}, {}) == {"audit_unavailable"}
}

test_an_unknown_state_of_a_store_is_down if {
	_codes("tools/call", {"counters": "?", "audit": null}, {}) == {"counters_unavailable", "audit_unavailable"}
}

test_the_data_may_let_requests_pass_while_a_store_is_down if {
	context := {"counters": "down", "audit": "down"}
	_codes("tools/call", context, {"counters": {"when_down": "allow"}, "audit": {"when_down": "allow"}}) == set()
}
