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
	counted := object.union(_allowed, {"counts": []})
	answers := _answers({
		"a": {"entry": "decide", "input": _allowed},
		"b": {"entry": "decide", "input": _hidden},
		"c": {"entry": "admit", "input": counted},
	})
	decided_a := decision.decide with input as _allowed with data.config as fixtures.config
	decided_b := decision.decide with input as _hidden with data.config as fixtures.config
	admitted_c := decision.admit with input as counted with data.config as fixtures.config
	answers == {"a": decided_a, "b": decided_b, "c": admitted_c}
	answers.a.effect == "allow"
	answers.b.effect == "deny"
}

test_a_question_to_another_entry_point_has_no_answer if {
	_answers({"a": {"entry": "visible", "input": _allowed}}) == {}
}

test_a_question_without_input_is_refused if {
	answers := _answers({"a": {"entry": "decide", "input": {}}})
	answers.a.effect == "deny"
}
