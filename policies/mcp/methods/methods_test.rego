package mcp.methods_test

import data.fixtures
import data.mcp.methods

_codes(roles, method) := codes if {
	reasons := methods.why with input as fixtures.request(roles, method) with data.config as fixtures.config
	codes := {reason.code | some reason in reasons}
}

test_a_method_without_a_permission_is_open_to_every_subject if _codes([], "ping") == set()

test_listing_needs_the_permission_to_read if {
	_codes(["mcp:viewer"], "tools/list") == set()
	_codes([], "tools/list") == {"method_not_permitted"}
}

test_an_unknown_method_is_refused_to_everybody if {
	every method in ["tools/execute", "", "Tools/Call", "tools/call ", null, 1] {
		_codes(["mcp:admin"], method) == {"method_unknown"}
	}
}
