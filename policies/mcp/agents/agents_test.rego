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
