# METADATA
# title: Patterns of namespaces
# description: >-
#   A name with one `*`, which stands for any letters, digits and `-`, none included. The policy data may have patterns among
#   the names of namespaces: the keys of `listed` in config/namespaces, and `namespaces` in config/tenants.
package mcp.patterns

# METADATA
# title: The text can be the name of a namespace
# description: Letters, digits and `-` only. Nothing else is one, whatever a pattern would match.
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
# description: Or another pattern as a whole, because a `*` is matched by a `*` only.
matches(pattern, name) if glob.match(pattern, [], name)

# METADATA
# title: The longest of the patterns that match a name
# description: Undefined if none does. `lint` refuses two of the same length that can match the same name.
longest(patterns, name) := max({[count(pattern), pattern] |
	some pattern in patterns
	matches(pattern, name)
})[1]

# METADATA
# title: What two patterns have in common
# description: >-
#   A pattern, if one can begin and end as both ask for, and the names in which its beginning and its end overlap, such as
#   `team-*-web` and `team-web` for `team-*` and `*-web`.
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
