# METADATA
# title: Agents
# description: >-
#   The OAuth client of a token, who acts on behalf of its user, and the client program can be limited to fewer permissions
#   than the user has. If several have a row in config/agents, all rows limit the request. The name of a program is what it
#   reports (`clientInfo`), which nobody verifies: its rows begin with `client_info:`, and no row grants anything.
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

# METADATA
# title: The agents of the request
# description: Objects with the name under which tables list the agent, and whether that name was only reported.
present contains {"name": name, "reported": false} if {
	some name in [input.subject.properties.client_id, input.subject.properties.actor]
	name != ""
}

present contains {"name": concat("", [_reported, input.context.client_info.name]), "reported": true} if {
	input.context.client_info.name != ""
}

# METADATA
# title: The row of a table that applies to an agent
# description: >-
#   The row with its exact name, else the longest matching pattern; undefined if there is none. Only patterns that begin with
#   `client_info:` apply to a reported name.
row(table, agent) := agent.name if {
	table[agent.name]
} else := max({[count(pattern), pattern] |
	some pattern, _ in table
	contains(pattern, "*")
	_applies(pattern, agent)

	# An id may be a URL. A pattern matches its dots as well.
	glob.match(pattern, null, agent.name)
})[1]

_reported := "client_info:"

_applies(_, agent) if not agent.reported

_applies(pattern, _) if startswith(pattern, _reported)

_within(ceiling, permission) if permission in ceiling

_within(ceiling, _) if "*" in ceiling

_ceilings := {data.config.agents[name].permissions |
	some agent in present
	name := row(data.config.agents, agent)
}
