# METADATA
# title: Lockdown
# description: In an emergency, only the roles of config/lockdown are served.
package mcp.lockdown

import data.mcp.reasons
import data.mcp.subject

# METADATA
# title: The subject is served
ok if data.config.lockdown.active == false

ok if {
	some role in data.config.lockdown.roles
	role in subject.roles
}

# METADATA
# title: The installation is not locked down
# custom:
#   code: locked_down
#   message: only administrators are served at the moment
#   solution: wait until an administrator lifts the lockdown
why contains reasons.because(rego.metadata.chain(), []) if not ok
