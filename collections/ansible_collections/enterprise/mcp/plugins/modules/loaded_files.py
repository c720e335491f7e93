#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Reports whether files differ from those that a service has loaded, even after an interrupted run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: loaded_files
short_description: Compare files with those that a service has loaded
version_added: 0.1.0
description:
  - A task that writes a file notifies a handler. If the run ends before the handler has run, the next run finds the file unchanged
    and notifies nothing, so the service keeps its old files.
  - Therefore the handler writes a note of the files that the service has loaded. A run compares the files with the note before it
    writes anything, and a task for each name in C(stale) notifies its handler. A loop over this module would not do, because Ansible
    notifies the handlers of all items as soon as one of them is changed.
  - A note that differs is emptied. The next successful load writes it again, also when the files were restored, because the service
    may have started with the other files.
  - A first installation has no files yet, so nothing is stale. The tasks that write the files notify the handlers. The module writes
    empty notes anyway, so that the run after an interrupted one notifies the handlers.
  - A host that was rebooted needs nothing. Its services have loaded the files that the note lists.
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
