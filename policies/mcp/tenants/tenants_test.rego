package mcp.tenants_test

import data.fixtures
import data.mcp.tenants

_refused(served, suspended) if {
	request := fixtures.request([], "ping")
	config := {"tenants": {"served": served, "suspended": suspended}}
	reasons := tenants.why with input as request with data.config as config
	{reason.code | some reason in reasons} == {"tenant_not_served"}
}

test_an_empty_list_serves_every_tenant if not _refused([], [])

test_a_listed_tenant_is_served if not _refused(["default"], [])

test_a_tenant_that_is_not_listed_is_refused if _refused(["other"], [])

test_a_suspended_tenant_is_refused if {
	_refused([], ["default"])
	_refused(["default"], ["default"])
}

test_nobody_is_served_while_the_suspensions_are_not_known if {
	_refused([], null)
	_refused([], {})
	reasons := tenants.why with input as fixtures.request([], "ping") with data.config as {"tenants": {"served": []}}
	count(reasons) == 1
}

test_a_resource_of_no_known_tenant_is_everyones if {
	tenants.own with input as fixtures.request([], "ping")
}
