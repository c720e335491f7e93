#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keeps copies of the files that a service works with, and restores them after a change that failed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_snapshot
short_description: Take and restore a snapshot of the files that a service works with
version_added: 0.1.0
description:
  - A role takes a snapshot when a service is ready with its files. When the service does not become ready with changed files, the
    role restores the snapshot. Restarting the service is left to the role.
  - There is one snapshot for each name. It is replaced atomically, so an interrupted run leaves the old or the new one, and it is
    readable by root only.
  - Content, owner, mode and the targets of links are kept. Contents are never part of the result.
  - Whether a service has loaded its files is another question (M(enterprise.mcp.loaded_files)).
author: [enterprise-mcp]
options:
  name:
    description: Name of the snapshot, such as the name of the service.
    type: str
    required: true
  paths:
    description:
      - Absolute paths of the files and links to copy, required with C(taken). Those that do not exist are left out.
    type: list
    elements: path
  state:
    description: C(taken) copies the files to the snapshot; C(restored) copies all files of the snapshot back.
    type: str
    choices: [taken, restored]
    required: true
  directory:
    description: Where the snapshots are.
    type: path
    default: /var/lib/enterprise-mcp/snapshots
"""

EXAMPLES = r"""
- name: Keep the files that OPA works with
  enterprise.mcp.file_snapshot:
    name: opa
    paths: [/usr/local/bin/opa, /etc/opa/config.yaml]
    state: taken

- name: Restore the files that OPA worked with
  enterprise.mcp.file_snapshot:
    name: opa
    state: restored
"""

RETURN = r"""
files:
  description: The paths whose files or copies were written, sorted.
  type: list
  elements: str
  returned: always
snapshot:
  description: Directory of the snapshot. A file is below it with its full path.
  type: str
  returned: always
"""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

CURRENT = "current"
"""Link to the snapshot in the directory of its name."""


def same(one: Path, other: Path) -> bool:
    """Return whether two paths are equal links, or files with equal content, owner and mode."""
    try:
        first, second = one.lstat(), other.lstat()
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(first.st_mode) and stat.S_ISLNK(second.st_mode):
        return one.readlink() == other.readlink()
    attributes = [(found.st_mode, found.st_uid, found.st_gid) for found in (first, second)]
    return attributes[0] == attributes[1] and one.read_bytes() == other.read_bytes()


def copy(source: Path, target: Path) -> None:
    """Copy a file or a link atomically, with owner and mode."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    if source.is_symlink():
        new.symlink_to(source.readlink())
    else:
        found = source.stat()
        # Nobody may read it before it has its owner and mode.
        os.close(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
        shutil.copyfile(source, new)
        os.chown(new, found.st_uid, found.st_gid)
        new.chmod(stat.S_IMODE(found.st_mode))
    new.replace(target)


def inside(folder: Path, path: str) -> Path:
    """Return where a snapshot has a file."""
    return folder / path.lstrip("/")


def take(home: Path, paths: list[str], *, check: bool) -> list[str]:
    """Copy the files to a new snapshot unless the current one equals it; return those that differ."""
    current = home / CURRENT
    differ = [
        path
        for path in paths
        if os.path.lexists(path) != os.path.lexists(inside(current, path))
        or (os.path.lexists(path) and not same(Path(path), inside(current, path)))
    ]
    if not differ or check:
        return differ
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=home))
    for path in paths:
        if os.path.lexists(path):
            copy(Path(path), inside(new, path))
    link = home / f"{CURRENT}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(new.name)
    link.replace(current)
    for entry in home.iterdir():
        if entry.name not in (CURRENT, new.name):
            shutil.rmtree(entry)
    return differ


def restore(home: Path, *, check: bool) -> list[str]:
    """Copy the files of the snapshot back; return those that differed."""
    current = home / CURRENT
    kept = [path for path in current.rglob("*") if path.is_symlink() or path.is_file()]
    paths = [f"/{path.relative_to(current)}" for path in kept]
    differ = [path for path in paths if not same(inside(current, path), Path(path))]
    if not check:
        for path in differ:
            copy(inside(current, path), Path(path))
    return differ


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "path"},
            "state": {"type": "str", "choices": ["taken", "restored"], "required": True},
            "directory": {"type": "path", "default": "/var/lib/enterprise-mcp/snapshots"},
        },
        required_if=[("state", "taken", ["paths"])],
        supports_check_mode=True,
    )
    wanted = module.params
    home = Path(wanted["directory"], wanted["name"])
    try:
        if wanted["state"] == "taken":
            files = take(home, wanted["paths"], check=module.check_mode)
        else:
            files = restore(home, check=module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(files), files=sorted(files), snapshot=str(home / CURRENT))


if __name__ == "__main__":
    main()
