# METADATA
# title: Reasons
# description: A reason is written once, as the METADATA of the rule that refuses, and put in its public form here.
package mcp.reasons

# METADATA
# title: The public form of a refusing rule's METADATA
# description: >-
#   `chain` is `rego.metadata.chain()` of the rule, `values` fill the placeholders of its message.
#   Out come code, message, rule (package and code) and solution, all of them strings.
because(chain, values) := {
	"code": custom.code,
	"message": sprintf(custom.message, values),
	"rule": concat(".", array.concat(package_path, [custom.code])),
	"solution": custom.solution,
} if {
	custom := chain[0].annotations.custom
	path := chain[0].path
	package_path := array.slice(path, 0, count(path) - 1)
}
