#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which runs on the controller."""

DOCUMENTATION = r"""
module: known_variables
short_description: Fail for a variable that no role knows
version_added: 0.1.0
description:
  - A mistyped variable is silently ignored by Ansible. This looks at the variables of hosts, takes those whose name
    begins with the name of a role and C(_), and fails for each that is not described in that or another role's
    C(meta/argument_specs.yml), naming the nearest known variable.
  - It fails as well for a name that begins with nearly the name of a role, when its rest is that of a variable of the role, or the
    whole is nearly the name of one. C(mcp_servers_memory_max) is meant for C(mcp_server_memory_max); C(mcp_servers_extra) and
    C(my_mcp_server_memory_max) are taken for names of your own.
  - It fails for a variable that is no list, or no dictionary, where the role's specification takes one. The check of arguments that
    Ansible makes lets a string pass, and the role then reads it letter by letter.
  - Names that begin with C(__) are internal to roles and not looked at.
author: [enterprise-mcp]
options:
  roles_path:
    description: Folder on the controller with one folder for each role.
    type: path
    required: true
  hosts:
    description: Names of the hosts whose variables are looked at; without it, all of the inventory.
    type: list
    elements: str
  also_known:
    description: Names that are known although no role describes them.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse mistyped variables
  enterprise.mcp.known_variables:
    roles_path: "{{ playbook_dir }}/../roles"
"""

RETURN = r"""
unknown:
  description: The variables that no role knows.
  type: list
  elements: dict
  returned: when there are any
  contains:
    name:
      description: Name of the variable.
      type: str
    nearest:
      description: The known name that looks most alike; empty when none does.
      type: str
    hosts:
      description: Hosts that have it.
      type: list
      elements: str
misshapen:
  description: The variables that are no list or no dictionary where one is meant.
  type: list
  elements: dict
  returned: when there are any, or unknown ones
  contains:
    name:
      description: Name of the variable.
      type: str
    wanted:
      description: C(list) or C(dict).
      type: str
    hosts:
      description: Hosts that have it.
      type: list
      elements: str
"""
