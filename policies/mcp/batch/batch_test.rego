package mcp.batch_test

import data.fixtures
import data.mcp.batch
import data.mcp.decision

_allowed := fixtures.call(["mcp:viewer"], "monitoring:get_alerts", {})

_hidden := fixtures.call(["mcp:viewer"], "k8s:restart_deployment", {"namespace": "production"})

_answers(questions) := answers if {
	answers := batch.answers with input as {"questions": questions} with data.config as fixtures.config
}

test_each_question_gets_the_answer_that_it_gets_alone if {
	charges := [
		{"id": "global", "key": "global", "limit": 1000, "window_s": 3600, "cost": 1},
		{"id": "user", "key": "user:default:alice", "limit": 100, "window_s": 3600, "cost": 1},
	]
	counted := object.union(_allowed, {"counts": fixtures.counts(charges, 1)})
	answers := _answers({
		"a": _allowed,
		"b": _hidden,
		"c": counted,
	})
	answer_a := decision.authorize with input as _allowed with data.config as fixtures.config
	answer_b := decision.authorize with input as _hidden with data.config as fixtures.config
	answer_c := decision.authorize with input as counted with data.config as fixtures.config
	answers == {"a": answer_a, "b": answer_b, "c": answer_c}
	answers.a.effect == "count"
	answers.b.effect == "deny"
	answers.c.effect == "allow"
}

test_a_question_without_input_is_refused if {
	answers := _answers({"a": {}})
	answers.a.effect == "deny"
}
