package mcp.agents_test

import data.fixtures
import data.mcp.agents

_config := object.union(fixtures.config, {"agents": {
	"*": {"permissions": ["tools:read", "metrics:query"]},
	"https://agents.example.com/*": {"permissions": ["tools:read", "k8s:get", "k8s:scale"]},
	"release-agent": {"permissions": ["*"]},
}})

_may(config, client, actor, permission) if {
	changes := {"subject": {"properties": {"client_id": client, "actor": actor}}}
	agents.allow(permission) with input as fixtures.but(fixtures.request([], "ping"), changes) with data.config as config
}

test_without_rows_no_agent_is_limited if _may(fixtures.config, "any", "bot", "k8s:restart")

test_a_user_without_an_agent_is_not_limited if _may(_config, "", "", "k8s:restart")

test_the_exact_row_goes_before_patterns_and_the_longest_pattern_before_others if {
	_may(_config, "release-agent", "", "k8s:restart")
	_may(_config, "https://agents.example.com/a.json", "", "k8s:scale")
	not _may(_config, "https://agents.example.com/a.json", "", "metrics:query")
	_may(_config, "other", "", "metrics:query")
	not _may(_config, "other", "", "k8s:scale")
}

test_an_actor_is_limited_as_a_client_is if {
	not _may(_config, "", "bot", "k8s:scale")
	not _may(_config, "release-agent", "bot", "k8s:scale")
	_may(_config, "release-agent", "bot", "tools:read")
}

_program(name) := {"context": {"client_info": {"name": name, "version": "1"}}}

_may_by_program(config, name, permission) if {
	agents.allow(permission) with input as fixtures.but(fixtures.request([], "ping"), _program(name)) with data.config as config
}

_programs := object.union(_config, {"agents": {
	"client_info:*": {"permissions": ["tools:read"]},
	"client_info:editor": {"permissions": ["*"]},
}})

test_a_client_program_can_be_limited_by_the_name_that_it_reports if {
	_may_by_program(_programs, "editor", "k8s:restart")
	_may_by_program(_programs, "chat", "tools:read")
	not _may_by_program(_programs, "chat", "metrics:query")
	_may_by_program(_programs, "", "k8s:restart")
}

test_rows_of_verified_names_are_not_about_reported_ones if {
	_may_by_program(_config, "chat", "k8s:restart")
	_may_by_program(_config, "release-agent", "k8s:restart")
}

test_a_reported_name_takes_no_limit_of_a_verified_one_away if {
	every name in ["", "editor", "release-agent", "client_info:editor"] {
		request := fixtures.but(fixtures.request([], "ping"), _program(name))
		by_agent := fixtures.but(request, {"subject": {"properties": {"client_id": "other"}}})
		not agents.allow("k8s:scale") with input as by_agent with data.config as _programs
	}
}

test_a_verified_name_that_looks_like_a_reported_one_is_limited_as_any_other if {
	not _may(_config, "client_info:editor", "", "k8s:scale")
}

test_nothing_is_allowed_while_the_rows_are_not_known if {
	not _may(object.union(fixtures.config, {"agents": null}), "x", "", "tools:read")
	not _may(object.remove(fixtures.config, ["agents"]), "x", "", "tools:read")
}

test_a_users_agent_may_do_less_than_the_user if {
	request := fixtures.call(["mcp:admin"], "k8s:restart_deployment", {"namespace": "staging"})
	by_agent := fixtures.but(request, {"subject": {"properties": {"client_id": "chat"}}})
	fixtures.decide(request, _config).effect == "allow"
	answer := fixtures.decide(by_agent, _config)
	fixtures.codes(answer) == {"not_available"}
}
