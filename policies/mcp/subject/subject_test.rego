package mcp.subject_test

import data.fixtures
import data.mcp.subject

_codes(request) := codes if {
	reasons := subject.why with input as request with data.config as fixtures.config
	codes := {reason.code | some reason in reasons}
}

_request := fixtures.request(["mcp:viewer"], "ping")

test_an_identified_subject_is_in_order if {
	subject.ok with input as _request
	_codes(_request) == set()
}

test_a_subject_without_type_id_or_tenant_is_refused if {
	every change in [
		{"type": "robot"},
		{"id": ""},
		{"id": null},
		{"id": 7},
		{"properties": {"tenant": ""}},
		{"properties": {"tenant": null}},
		{"properties": {"tenant": " "}},
		{"id": "\t \n"},
	] {
		_codes(fixtures.but(_request, {"subject": change})) == {"subject_not_identified"}
	}
}

test_roles_that_are_not_in_the_data_give_nothing if {
	roles := subject.roles with input as fixtures.request(["mcp:viewer", "root"], "ping") with data.config as fixtures.config
	roles == {"mcp:viewer"}
}

test_permissions_of_several_roles_add_up if {
	config := object.union(fixtures.config, {"roles": {"a": {"permissions": ["x"]}, "b": {"permissions": ["y"]}}})
	request := fixtures.request(["a", "b", "c"], "ping")
	every permission in ["x", "y"] {
		subject.may(permission) with input as request with data.config as config
	}
	not subject.may("z") with input as request with data.config as config
}

test_a_star_permits_everything_and_nothing_else_does if {
	subject.may("k8s:restart") with input as fixtures.request(["mcp:admin"], "ping") with data.config as fixtures.config
	not subject.may("k8s:restart") with input as fixtures.request(["mcp:operator"], "ping") with data.config as fixtures.config
	not subject.may("k8s:restart") with input as fixtures.request([], "ping") with data.config as fixtures.config
}

test_roles_of_a_wrong_type_give_nothing if {
	every roles in ["mcp:admin", null, {"mcp:admin": true}, [["mcp:admin"]], [null]] {
		not subject.may("tools:read") with input as fixtures.request(roles, "ping") with data.config as fixtures.config
	}
}
