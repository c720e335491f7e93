# METADATA
# title: Decisions of the enterprise MCP server
# description: >-
#   `opa check` checks every package below against these schemas: a misspelt field of the input or of the policy data is an
#   error before anything is published. Choices are in policies/config; rules are here.
# scope: subpackages
# schemas:
#   - input: schema.input.schema
#   - data.config.agents: schema.agents.schema
#   - data.config.audit: schema.audit.schema
#   - data.config.catalog: schema.catalog.schema
#   - data.config.groups: schema.groups.schema
#   - data.config.issuers: schema.issuers.schema
#   - data.config.limits: schema.limits.schema
#   - data.config.methods: schema.methods.schema
#   - data.config.namespaces: schema.namespaces.schema
#   - data.config.network: schema.network.schema
#   - data.config.obligations: schema.obligations.schema
#   - data.config.roles: schema.roles.schema
#   - data.config.scopes: schema.scopes.schema
#   - data.config.stores: schema.stores.schema
#   - data.config.tenants: schema.tenants.schema
package mcp
