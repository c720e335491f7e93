package mcp.obligations_test

import data.fixtures
import data.mcp.obligations

_timeout(request) := seconds if {
	result := obligations.obligations with input as request with data.config as fixtures.config
	some obligation in result
	obligation.type == "timeout"
	seconds := obligation.seconds
}

test_a_tool_without_its_own_row_has_the_default if {
	_timeout(fixtures.call([], "cmdb:query_assets", {})) == 10
	_timeout(fixtures.read([], "enterprise://cmdb/assets")) == 10
}

test_the_row_of_a_tool_overrides_the_default if _timeout(fixtures.call([], "k8s:get_pod_logs", {})) == 30

_redacted(row) := obligation.fields if {
	config := object.union(fixtures.config, {"obligations": {"tool": {"cmdb:query_assets": row}}})
	result := obligations.obligations with input as fixtures.call([], "cmdb:query_assets", {}) with data.config as config
	some obligation in result
	obligation.type == "redact"
}

test_what_a_tool_masks_is_masked_besides_the_default if {
	_redacted({"redact": ["ip_address", "token"]}) == ["password", "token", "ip_address"]
	_redacted({"redact": []}) == ["password", "token"]
	_redacted({"timeout_s": 30}) == ["password", "token"]
}

test_completing_the_names_of_a_tool_has_its_obligations if {
	request := fixtures.but(fixtures.call([], "k8s:get_pod_logs", {}), {"action": {"name": "completion/complete"}})
	_timeout(request) == 30
}

test_listing_has_no_obligations if {
	result := obligations.obligations with input as fixtures.request([], "tools/list") with data.config as fixtures.config
	result == []
}
