package mcp.limits_test

import data.fixtures
import data.mcp.limits

_ids(request) := ids if {
	charges := limits.charges with input as request with data.config as fixtures.config
	ids := [charge.id | some charge in charges]
}

_admin := ["mcp:admin"]

_scale := fixtures.call(_admin, "k8s:scale_deployment", {"namespace": "staging"})

test_each_call_is_charged_globally_and_to_its_user if {
	_ids(fixtures.call(_admin, "cmdb:query_assets", {})) == ["global", "user"]
	_ids(fixtures.read(_admin, "enterprise://cmdb/assets")) == ["global", "user"]
}

test_a_tool_is_charged_by_its_permission_or_its_name if {
	_ids(_scale) == ["global", "user", "tool:k8s:scale"]
	_ids(fixtures.call(_admin, "k8s:restart_deployment", {"namespace": "x"})) == ["global", "user", "tool:k8s:restart"]
	_ids(fixtures.call(_admin, "monitoring:create_dashboard", {})) == ["global", "user", "tool:monitoring:create_dashboard"]
}

_typed(tenant, id, kind, thing) := fixtures.but(fixtures.request(_admin, "completion/complete"), {
	"subject": {"id": id, "properties": {"tenant": tenant}},
	"resource": {"type": kind, "id": thing},
})

test_a_completion_is_charged_to_its_own_limit_and_uses_up_no_calls if {
	_ids(_typed("default", "alice", "prompt", "triage_alert")) == ["method:completion/complete"]
	_ids(_typed("default", "alice", "tool", "k8s:scale_deployment")) == ["method:completion/complete"]
}

test_completions_are_counted_for_each_user if {
	charges := limits.charges with input as _typed("a:b", "x y", "prompt", "triage_alert") with data.config as fixtures.config
	charges == [{
		"id": "method:completion/complete",
		"key": "method:completion/complete:user:a%3Ab:x+y",
		"limit": 120,
		"window_s": 60,
		"cost": 1,
	}]
}

test_a_method_without_a_limit_of_its_own_is_charged_as_a_call if {
	config := json.remove(fixtures.config, ["limits/method"])
	charges := limits.charges with input as _typed("default", "alice", "prompt", "triage_alert") with data.config as config
	[charge.id | some charge in charges] == ["global", "user"]
}

test_listing_is_not_charged if _ids(fixtures.request(_admin, "tools/list")) == []

test_nothing_is_charged_while_the_counters_are_down if {
	_ids(fixtures.but(_scale, {"context": {"counters": "down"}})) == []
}

_tenant_key(tenant, id) := key if {
	request := fixtures.but(_scale, {"subject": {"id": id, "properties": {"tenant": tenant}}})
	config := object.union(fixtures.config, {"limits": {"tenant": {"limit": 500, "window_s": 60}}})
	charges := limits.charges with input as request with data.config as config
	[charge.id | some charge in charges] == ["global", "user", "tenant", "tool:k8s:scale"]
	object.subset(charges[2], {"limit": 500, "window_s": 60, "cost": 1})
	key := charges[2].key
}

test_everyone_of_a_tenant_is_counted_together_where_tenants_are_limited if {
	_tenant_key("acme", "alice") == "tenant:acme"
	_tenant_key("acme", "bob") == "tenant:acme"
	_tenant_key("other", "alice") == "tenant:other"
	_tenant_key("a:b", "alice") == "tenant:a%3Ab"
}

_agents := object.union(fixtures.config, {"limits": {"agent": {
	"*": {"limit": 50, "window_s": 60},
	"bot": {"limit": 5, "window_s": 60},
	"client_info:chat-*": {"limit": 2, "window_s": 60},
}}})

_agent_windows(subject, program) := windows if {
	changes := {
		"subject": {"id": "a b", "properties": subject},
		"context": {"client_info": {"name": program, "version": ""}},
	}
	charges := limits.charges with input as fixtures.but(_scale, changes) with data.config as _agents
	windows := [{"id": charge.id, "key": charge.key, "limit": charge.limit} |
		some charge in charges
		startswith(charge.id, "agent:")
	]
}

test_the_calls_of_an_agent_are_counted_together if {
	_agent_windows({"client_id": "chat:x", "actor": "bot"}, "") == [
		{"id": "agent:bot", "key": "agent:bot", "limit": 5},
		{"id": "agent:chat:x", "key": "agent:chat%3Ax", "limit": 50},
	]
	_agent_windows({"client_id": "bot", "actor": "bot"}, "") == [{"id": "agent:bot", "key": "agent:bot", "limit": 5}]
	_agent_windows({}, "") == []
}

test_calls_under_a_reported_name_are_counted_for_each_user_and_row if {
	every program in ["chat-1", "chat-2"] {
		windows := _agent_windows({}, program)
		[window.key | some window in windows] == ["agent:client_info%3Achat-%2A:user:default:a+b"]
	}
	_agent_windows({}, "bot") == []
}

test_the_limit_of_an_agent_ends_its_calls_and_nobody_elses if {
	charges := limits.charges with input as fixtures.but(_scale, {"subject": {"properties": {"client_id": "bot"}}})
		with data.config as _agents
	request := fixtures.but(_scale, {"subject": {"properties": {"client_id": "bot"}}})
	counts := [{"charge": charge, "count": count, "reset_ms": 1} |
		some charge in charges
		count := {true: 6, false: 1}[charge.id == "agent:bot"]
	]
	not limits.within with input as object.union(request, {"counts": counts}) with data.config as _agents
	fixtures.decide(request, _agents).effect == "allow"
}

_tool_key(per) := key if {
	config := object.union(fixtures.config, {"limits": {"tool": {"k8s:scale": {"per": per}}}})
	charges := limits.charges with input as _scale with data.config as config
	key := charges[2].key
}

test_a_tool_is_counted_for_everyone_a_tenant_or_a_user if {
	_tool_key("everyone") == "tool:k8s:scale"
	_tool_key("tenant") == "tool:k8s:scale:tenant:default"
	_tool_key("user") == "tool:k8s:scale:user:default:alice"
}

test_a_tool_whose_limit_does_not_say_for_whom_is_counted_for_everyone if {
	every per in [null, "nobody", 7] {
		_tool_key(per) == "tool:k8s:scale"
	}
	config := json.remove(fixtures.config, ["limits/tool/k8s:scale/per"])
	charges := limits.charges with input as _scale with data.config as config
	charges[2].key == "tool:k8s:scale"
}

test_a_limit_without_a_number_is_charged_and_its_answer_is_incomplete if {
	config := json.remove(fixtures.config, ["limits/tool/k8s:scale/limit"])
	charges := limits.charges with input as _scale with data.config as config
	object.keys(charges[2]) == {"id", "key", "window_s", "cost"}
}

test_nothing_is_charged_and_nothing_allowed_without_the_general_limits if {
	every path in ["limits/user", "limits/global"] {
		config := json.remove(fixtures.config, [path])
		not limits.charges with input as _scale with data.config as config
		fixtures.decide(_scale, config).effect == "deny"
	}
}

_user_key(tenant, id) := key if {
	request := fixtures.but(_scale, {"subject": {"id": id, "properties": {"tenant": tenant}}})
	charges := limits.charges with input as request with data.config as fixtures.config
	key := charges[1].key
}

test_no_two_users_share_a_counter if {
	_user_key("a:b", "c") != _user_key("a", "b:c")
	_user_key("a", "c") != _user_key("b", "c")
	_user_key("a", "x y") == "user:a:x+y"
}
