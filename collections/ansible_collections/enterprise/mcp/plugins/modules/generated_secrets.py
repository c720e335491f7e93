#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which runs on the controller."""

DOCUMENTATION = r"""
module: generated_secrets
short_description: Make missing secrets once, on the controller
version_added: 0.1.0
description:
  - Writes each secret that has no file yet into O(directory), readable by its owner only.
  - A secret that exists is never changed, and one that is given in the variable C(secrets_NAME) is not made.
  - Files are encrypted with Ansible Vault when the run has a vault password, and plain otherwise. Public keys stay plain.
  - Runs on the controller, once, whatever host it is called for.
author: [enterprise-mcp]
options:
  directory:
    description:
      - Folder on the controller. It is made with mode 0700, and the topmost folder that has to be made for it gets a file
        C(.gitignore) by which Git ignores all that is in it.
    type: path
    required: true
  secrets:
    description:
      - Name of each secret (its file name) and its kind.
      - V(password) is 32 random bytes in URL-safe letters. V(ec_private_key) is a PEM key on the curve P-256, and
        writes its public key beside it under the name in C(public).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: File name in O(directory).
        type: str
        required: true
      kind:
        description: What to make.
        type: str
        choices: [password, ec_private_key]
        default: password
      public:
        description: File name of the public key of an V(ec_private_key).
        type: str
"""

EXAMPLES = r"""
- name: Make what is missing
  enterprise.mcp.generated_secrets:
    directory: "{{ inventory_dir }}/.state/secrets"
    secrets:
      - {name: redis_password}
      - {name: bundle_signing_key, kind: ec_private_key, public: bundle_verification_key}
"""

RETURN = r"""
created:
  description: Names of the files that were made.
  type: list
  elements: str
  returned: always
"""
