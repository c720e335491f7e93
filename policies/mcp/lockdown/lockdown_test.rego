package mcp.lockdown_test

import data.fixtures
import data.mcp.decision
import data.mcp.lockdown

_refused(roles, settings) if {
	request := fixtures.request(roles, "ping")
	config := object.union(object.remove(fixtures.config, ["lockdown"]), {"lockdown": settings})
	reasons := lockdown.why with input as request with data.config as config
	{reason.code | some reason in reasons} == {"locked_down"}
}

_active := {"active": true, "roles": ["mcp:admin"]}

test_without_a_lockdown_every_role_is_served if not _refused([], {"active": false, "roles": ["mcp:admin"]})

test_in_a_lockdown_other_roles_are_refused if {
	_refused([], _active)
	_refused(["mcp:viewer", "mcp:operator"], _active)
}

test_in_a_lockdown_a_listed_role_is_served if not _refused(["mcp:viewer", "mcp:admin"], _active)

test_unknown_settings_are_a_lockdown if {
	_refused(["mcp:viewer"], {"roles": ["mcp:admin"]})
	_refused(["mcp:admin"], {})
	_refused(["mcp:admin"], null)
	_refused(["mcp:viewer"], {"active": "false", "roles": []})
}

test_in_a_lockdown_nothing_is_visible_to_other_roles if {
	config := object.union(fixtures.config, {"lockdown": _active})
	seen := decision.visible with input as fixtures.request(["mcp:viewer"], "tools/list") with data.config as config
	{seen.tools, seen.resources, seen.prompts} == {[]}
}

test_the_canary_passes_in_a_lockdown if {
	answer := decision.canary with data.config as object.union(fixtures.config, {"lockdown": _active})
	answer.allow_ok
	answer.deny_ok
}
