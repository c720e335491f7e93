package mcp.request_test

import data.fixtures
import data.mcp.request

_codes(document) := {reason.code | some reason in reasons} if {
	reasons := request.why with input as document
}

_request := fixtures.call(["mcp:viewer"], "k8s:get_pods", {"namespace": "development"})

test_a_complete_request_is_in_order if {
	request.ok with input as _request
	_codes(_request) == set()
}

test_another_protocol_version_is_refused if {
	every version in [1, 3, "2", null] {
		document := fixtures.but(_request, {"version": version})
		not request.ok with input as document
		_codes(document) == {"unsupported_version"}
	}
}

test_a_request_that_lacks_a_part_is_refused if {
	every path in [
		"/action/name",
		"/resource/type",
		"/resource/id",
		"/resource/properties",
		"/context/ip",
		"/subject/properties/roles",
		"/subject/properties/groups",
		"/subject/properties/scopes",
		"/subject/properties/issuer",
		"/subject/properties/client_id",
		"/subject/properties/actor",
		"/subject/properties/networks",
	] {
		document := json.remove(_request, [path])
		not request.ok with input as document
		_codes(document) == {"request_incomplete"}
	}
}

test_a_part_of_the_wrong_type_is_refused if {
	every change in [
		{"action": {"name": 1}},
		{"resource": {"type": null}},
		{"resource": {"id": ["k8s:get_pods"]}},
		{"resource": {"properties": "namespace"}},
		{"context": {"ip": 1}},
		{"subject": {"properties": {"roles": {"a": "mcp:admin"}}}},
		{"subject": {"properties": {"groups": {"a": "operators"}}}},
		{"subject": {"properties": {"scopes": "mcp:read"}}},
		{"subject": {"properties": {"issuer": null}}},
		{"subject": {"properties": {"client_id": ["x"]}}},
		{"subject": {"properties": {"actor": 1}}},
		{"subject": {"properties": {"networks": "10.0.0.0/8"}}},
	] {
		document := object.union(_request, change)
		not request.ok with input as document
		_codes(document) == {"request_incomplete"}
	}
}
