# METADATA
# title: Several questions in one query
# description: >-
#   What `decide` and `admit` say of each question, by the id that the server gave it. One query with eight questions
#   costs much less than eight queries; a question that has no answer here is a refusal like any other.
# schemas:
#   - input: schema.batch.schema
package mcp.batch

import data.mcp.decision

# METADATA
# title: An answer for each question
# entrypoint: true
answers[id] := answer if {
	some id, question in input.questions
	question.entry == "decide"
	answer := decision.decide with input as question.input
}

answers[id] := answer if {
	some id, question in input.questions
	question.entry == "admit"
	answer := decision.admit with input as question.input
}
