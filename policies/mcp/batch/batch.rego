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
# description: >-
#   Each is taken from a comprehension: OPA forgets what it has worked out when it leaves a `with`, and without one it
#   leaves at the first definition that holds and works out everything again to see whether another one disagrees.
# entrypoint: true
answers[id] := answer if {
	some id, question in input.questions
	question.entry == "decide"
	found := {complete | complete := decision.decide} with input as question.input
	some answer in found
}

answers[id] := answer if {
	some id, question in input.questions
	question.entry == "admit"
	found := {complete | complete := decision.admit} with input as question.input
	some answer in found
}
