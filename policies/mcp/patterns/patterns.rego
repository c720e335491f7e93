# METADATA
# title: Patterns of namespaces
# description: >-
#   A pattern is a name with one `*`, which matches any number of letters, digits and `-`, including none. The policy data may
#   contain patterns in place of names in the keys of `listed` in config/namespaces and in `namespaces` in config/tenants.
package mcp.patterns

# METADATA
# title: The text can be the name of a namespace
# description: It contains only letters, digits and `-`. Other texts are not names, even if a pattern matches them.
is_label(text) if {
	is_string(text)
	text != ""
	trim(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

# METADATA
# title: The patterns among these names
among(names) := {name |
	some name in names
	contains(name, "*")
}

# METADATA
# title: The pattern matches the name
# description: The name may be another pattern, because only a `*` matches a `*`.
matches(pattern, name) if glob.match(pattern, [], name)

# METADATA
# title: The longest of the patterns that match a name
# description: Undefined if none matches. `lint` refuses two patterns of the same length that can match the same name.
longest(patterns, name) := max({[count(pattern), pattern] |
	some pattern in patterns
	matches(pattern, name)
})[1]

# METADATA
# title: The intersection of two patterns
# description: >-
#   A pattern with the longer beginning and the longer end, if they are compatible, and the names in which the beginning and
#   the end overlap. For `team-*` and `*-web` these are `team-*-web` and `team-web`.
common(a, b) := {text |
	one := split(a, "*")
	other := split(b, "*")
	some start in {one[0], other[0]}
	startswith(start, one[0])
	startswith(start, other[0])
	some end in {one[1], other[1]}
	endswith(end, one[1])
	endswith(end, other[1])
	some text in ({concat("*", [start, end])} | _overlapping(start, end))
	matches(a, text)
	matches(b, text)
}

_overlapping(start, end) := {name |
	some i, _ in split(start, "")
	name := concat("", [substring(start, 0, i), end])
	startswith(name, start)
}
