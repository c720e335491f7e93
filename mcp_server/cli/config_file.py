"""Changes of a configuration file that keep everything else in it: comments, order and spaces.

The parser of YAML tells where each value begins and ends. Only these characters are replaced, so that
no writer of YAML formats the rest again.
"""

from __future__ import annotations

import copy
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mcp_server.settings import EncryptionSettings, SettingsError, secrets_of, settings_of
from mcp_server.settings.document import Document, parse_document
from mcp_server.settings.secret import SettingPath

__all__ = ["encrypted", "rotated", "write_in_place"]


def encrypted(document: Document, given: EncryptionSettings | None) -> tuple[str, list[str]]:
    """Return the text with all readable secrets encrypted, and the paths of these secrets.

    Args:
        given: the key, if the file has no section `encryption` yet.

    Raises:
        SettingsError: the file is not valid, names no key or another one, or the key cannot be used.
    """
    settings = settings_of(document)
    found = {path: secret for path, secret in secrets_of(settings) if secret.plain}
    section = settings.encryption or given
    if settings.encryption is not None and given is not None:
        raise SettingsError(
            f"{document.path} has a section encryption, which names the key; to change the key, use "
            "mcpctl config rotate-key"
        )
    if not found:
        return document.text, []
    if section is None:
        raise SettingsError(
            f"{document.path} has no section encryption: name a key, such as --password-file FILE"
        )
    if settings.encryption is None and document.root.flow_style:
        raise SettingsError(
            f"{document.path} is one mapping in braces; add the section yourself: "
            f"encryption: {_flow(_as_data(section))}"
        )
    cipher = section.cipher()
    new = {path: {"encrypted": cipher.encrypt(secret.reveal())} for path, secret in found.items()}
    text = _replaced(document, new)
    if settings.encryption is None:
        text = f"{text.rstrip()}\nencryption: {_flow(_as_data(section))}\n"
        new[("encryption",)] = _as_data(section)
    _require_only(document, new, text)
    return text, [".".join(path) for path in found]


def rotated(document: Document, new_key: EncryptionSettings) -> tuple[str, list[str]]:
    """Return the text with all encrypted secrets encrypted by `new_key`, and the paths of them.

    Raises:
        SettingsError: the file is not valid, has no encrypted secret, or a key cannot be used.
    """
    found = {p: secret for p, secret in secrets_of(settings_of(document)) if secret.encrypted}
    if not found:
        raise SettingsError(f"{document.path} has no encrypted secret")
    cipher = new_key.cipher()
    new: dict[SettingPath, Any] = {
        (*path, "encrypted"): cipher.encrypt(secret.reveal()) for path, secret in found.items()
    }
    new[("encryption",)] = _as_data(new_key)
    text = _replaced(document, new)
    _require_only(document, new, text)
    return text, [".".join(path) for path in found]


def write_in_place(path: Path, text: str) -> None:
    """Replace the content of a file at once: after a crash it has the old or the new content.

    The file keeps its mode and owner.

    Raises:
        SettingsError: the file cannot be written; it is unchanged.
    """
    try:
        target = path.resolve(strict=True)
        before = target.stat()
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}; it is unchanged") from None


def _as_data(section: EncryptionSettings) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude_none=True)


def _flow(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _replaced(document: Document, new: Mapping[SettingPath, Any]) -> str:
    ranges: dict[tuple[int, int], str] = {}
    for path, value in new.items():
        node = _node_at(document, path)
        start, end = node.start_mark.index, _end(document.text, node)
        if document.text[start] in "&!":
            raise SettingsError(
                f"{document.path}: {'.'.join(path)} has an anchor or a tag; write the value alone"
            )
        # The same value in two settings, by an alias, is encrypted once.
        ranges.setdefault((start, end), _flow(value))
    text = document.text
    for (start, end), value in sorted(ranges.items(), reverse=True):
        text = text[:start] + value + text[end:]
    return text


def _node_at(document: Document, path: SettingPath) -> yaml.Node:
    node: yaml.Node = document.root
    for part in path:
        inner = _inner(node, part)
        if inner is None:
            raise SettingsError(
                f"{document.path}: {'.'.join(path)} comes from a merge (<<); write it out"
            )
        node = inner
    return node


def _inner(node: yaml.Node, part: str) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode):
        item: yaml.Node = node.value[int(part)]
        return item
    return next((value for key, value in node.value if key.value == part), None)


def _end(text: str, node: yaml.Node) -> int:
    """Return the index after a value. The parser's end of a block includes the lines after it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return len(text[:end].rstrip())
    return end


def _require_only(document: Document, new: dict[SettingPath, Any], text: str) -> None:
    """Require that the new text differs from the document in nothing else."""
    expected = copy.deepcopy(document.data)
    # With an alias, two paths share one value; the first path determines it.
    for path, value in reversed(new.items()):
        parent: Any = expected
        for part in path[:-1]:
            parent = parent[int(part) if isinstance(parent, list) else part]
        parent[path[-1]] = value
    if parse_document(document.path, text).data != expected:
        raise SettingsError(
            f"{document.path} cannot be changed in place; write the secrets as `name: value` lines"
        )
