# METADATA
# title: Agents
# description: >-
#   The OAuth client of a token, and who acts on behalf of its user, can be limited to fewer permissions than the user has. If
#   both have a row in config/agents, both rows limit the request.
package mcp.agents

# METADATA
# title: The agents have a permission
allow(_) if data.config.agents == {}

allow(permission) if {
	is_object(data.config.agents)
	every ceiling in _ceilings {
		_within(ceiling, permission)
	}
}

_within(ceiling, permission) if permission in ceiling

_within(ceiling, _) if "*" in ceiling

_ceilings := {ceiling |
	some name in [input.subject.properties.client_id, input.subject.properties.actor]
	name != ""
	ceiling := _ceiling(name)
}

_ceiling(name) := data.config.agents[name].permissions if {
	data.config.agents[name]
} else := data.config.agents[_longest(name)].permissions

# An id may be a URL. A pattern matches its dots as well.
_longest(name) := max({[count(pattern), pattern] |
	some pattern in _patterns
	glob.match(pattern, null, name)
})[1]

_patterns := {pattern | some pattern, _ in data.config.agents; contains(pattern, "*")}
