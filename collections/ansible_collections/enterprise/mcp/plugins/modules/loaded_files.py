#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Reports whether files differ from those that a service has loaded, even after an interrupted run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: loaded_files
short_description: Compare files with those that a service has loaded
version_added: 0.1.0
description:
  - A task that writes a file notifies a handler, and forgets it when the run ends before the handler has done its work. The next
    run finds the file as it should be, and the service goes on with what it had.
  - So the handler has a note written of what it made the service load. A run compares the files with the note before it writes
    anything, and a task for each name in C(stale) notifies its handler. A loop over this module would not do, because Ansible
    notifies the handlers of all items as soon as one of them is changed.
  - A note that differs is made void. It is written anew with the next load that succeeds, even if the files become again what they
    were, because the service may have been started with others meanwhile.
  - A first installation has loaded nothing and misses files, so nothing is stale then. The tasks that write the files notify the
    handlers. Void notes are made all the same, so that the run after one that was cut tells the service.
  - A host that was started anew needs nothing. Its services have loaded what the note tells.
author: [enterprise-mcp]
options:
  loads:
    description:
      - "What makes the service load files, such as the name of a handler: the files that it loads then."
      - A file that is missing counts as different from one that is there.
    type: dict
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
- name: Look whether nginx has loaded what is there
  enterprise.mcp.loaded_files:
    loads:
      Reload nginx: [/etc/nginx/nginx.conf]
      Restart nginx: [/etc/systemd/system/nginx.service.d/limits.conf]
  register: looked
  changed_when: false

- name: Have nginx load what it has not
  ansible.builtin.debug:
    msg: "{{ item }}: it has not loaded what is there."
  loop: "{{ looked.stale }}"
  changed_when: true
  notify: "{{ item }}"

# The last handler
- name: Note what nginx has loaded
  enterprise.mcp.loaded_files:
    loads:
      Reload nginx: [/etc/nginx/nginx.conf]
      Restart nginx: [/etc/systemd/system/nginx.service.d/limits.conf]
    loaded: true
  changed_when: false
  listen: [Reload nginx, Restart nginx]
"""

RETURN = r"""
stale:
  description: The names whose files are not those of the note, sorted; none in a first installation.
  type: list
  elements: str
  returned: always
notes:
  description: The file with the note of each name.
  type: dict
  returned: always
"""

import hashlib
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

VOID = "not loaded"
"""Content of a note that is not valid; it equals no fingerprint."""


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
    """Return the content of a note; empty if it does not exist."""
    try:
        return note.read_text().strip()
    except FileNotFoundError:
        return ""


def is_first(notes: dict[str, Path], loads: dict[str, list[str]]) -> bool:
    """Return whether no service can have loaded the files: there is no note, and a file is missing."""
    noted = any(note.exists() for note in notes.values())
    return not noted and not all(Path(path).exists() for files in loads.values() for path in files)


def write(note: Path, text: str) -> None:
    """Write a note atomically: an interrupted run leaves the old or the new content."""
    note.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = note.with_name(f"{note.name}.new")
    new.write_text(f"{text}\n")
    new.replace(note)


def update(note: Path, files: list[str], *, loaded: bool, check: bool) -> bool:
    """Compare files with a note, and update or invalidate the note; return whether they differed."""
    now, noted = fingerprint(files), read(note)
    if now != noted and not check:
        write(note, now if loaded else VOID)
    return now != noted


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "loads": {"type": "dict", "required": True},
            "loaded": {"type": "bool", "default": False},
            "directory": {"type": "path", "default": "/var/lib/enterprise-mcp/loaded"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    for name, files in wanted["loads"].items():
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            module.fail_json(msg=f"loads: {name} needs a list of files, not {files!r}")
    directory = Path(wanted["directory"])
    notes = {name: directory / re.sub(r"\W+", "-", name).lower() for name in wanted["loads"]}
    try:
        first = not wanted["loaded"] and is_first(notes, wanted["loads"])
        differ = [
            name
            for name, files in sorted(wanted["loads"].items())
            if update(notes[name], files, loaded=wanted["loaded"], check=module.check_mode)
        ]
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(
        changed=bool(differ),
        stale=[] if first else differ,
        notes={name: str(note) for name, note in notes.items()},
    )


if __name__ == "__main__":
    main()
