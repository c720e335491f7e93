# METADATA
# title: Reasons
# description: The METADATA of a refusing rule is the only source of its reason. This package converts it to the public form.
package mcp.reasons

# METADATA
# title: The public form of a refusing rule's METADATA
# description: >-
#   `chain` is `rego.metadata.chain()` of the rule; `values` fill the placeholders of its message.
#   The result has the strings code, message, rule (package and code) and solution.
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
