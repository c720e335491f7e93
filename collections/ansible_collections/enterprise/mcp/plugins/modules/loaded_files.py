#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Tells whether files are still those that a service has loaded, whatever became of the run that wrote them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: loaded_files
short_description: Compare files with those that a service has loaded
version_added: 0.1.0
description:
  - A task that writes a file notifies a handler, and forgets it when the run ends before the handler has done its work. The next
    run finds the file as it should be, and the service goes on with what it had.
  - So the handler has a note written of what it made the service load. A run compares the files with the note before it writes
    anything; C(changed) means that the service has to be told, and notifies the handler.
  - A note that differs is taken away. It comes back with the next load that succeeds, even if the files become again what they were,
    because the service may have been started with others meanwhile.
  - A host that was started anew needs nothing. Its services have loaded what the note tells.
author: [enterprise-mcp]
options:
  name:
    description: What makes the service load the files, such as the name of the handler.
    type: str
    required: true
  files:
    description: The files. One that is missing counts as different from one that is there.
    type: list
    elements: path
    required: true
  loaded:
    description: Notes that the service has loaded the files as they are now, instead of comparing.
    type: bool
    default: false
  directory:
    description: Where the notes are.
    type: path
    default: /var/lib/enterprise-mcp/loaded
"""

EXAMPLES = r"""
- name: Look whether nginx has loaded its configuration
  enterprise.mcp.loaded_files:
    name: Reload nginx
    files: [/etc/nginx/nginx.conf]
  notify: Reload nginx

# The last handler
- name: Note what nginx has loaded
  enterprise.mcp.loaded_files:
    name: Reload nginx
    files: [/etc/nginx/nginx.conf]
    loaded: true
  changed_when: false
  listen: Reload nginx
"""

RETURN = r"""
note:
  description: The file with the note.
  type: str
  returned: always
"""

import hashlib
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def fingerprint(files: list[str]) -> str:
    """Return a hash of the names and contents of files."""
    whole = hashlib.sha256()
    for path in sorted(files):
        try:
            content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except FileNotFoundError:
            content = "missing"
        whole.update(f"{path}\0{content}\0".encode())
    return whole.hexdigest()


def read(note: Path) -> str:
    """Return what the note says; nothing where there is none."""
    try:
        return note.read_text().strip()
    except FileNotFoundError:
        return ""


def write(note: Path, text: str) -> None:
    """Write the note at once: a run that ends here leaves the whole of it or nothing."""
    note.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = note.with_name(f"{note.name}.new")
    new.write_text(f"{text}\n")
    new.replace(note)


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "required": True},
            "loaded": {"type": "bool", "default": False},
            "directory": {"type": "path", "default": "/var/lib/enterprise-mcp/loaded"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    note = Path(wanted["directory"]) / re.sub(r"\W+", "-", wanted["name"]).lower()
    try:
        now = fingerprint(wanted["files"])
        noted = read(note)
        if now != noted and not module.check_mode:
            if wanted["loaded"]:
                write(note, now)
            elif noted:
                note.unlink()
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=now != noted, note=str(note))


if __name__ == "__main__":
    main()
