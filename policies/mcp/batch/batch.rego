# METADATA
# title: Several requests in one query
# description: >-
#   The answers of `authorize` to several requests, by the ids that the server chose. One query with eight requests costs much
#   less than eight queries. The server refuses a request that has no answer here.
# schemas:
#   - input: schema.batch.schema
package mcp.batch

import data.mcp.decision

# METADATA
# title: An answer for each request
# description: >-
#   The answer is taken from a comprehension for speed. OPA discards its cached results at the end of a `with`. Without the
#   comprehension, that happens at the first definition that holds, and OPA evaluates everything again to check for conflicts.
# entrypoint: true
answers[id] := answer if {
	some id, question in input.questions
	found := {complete | complete := decision.authorize} with input as question
	some answer in found
}
