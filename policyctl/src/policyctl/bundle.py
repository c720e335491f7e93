"""Builds the signed bundle that the hosts load."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from policyctl.checks import check_all, check_canary
from policyctl.opa import OPA_VERSION
from policyctl.tree import PolicyTree, tree_with_overrides

ROOTS = ("mcp", "config")
# The version of the input and the decisions; the policies and the server agree on it.
PROTOCOL = 1
# Bundles kept in `published` on the controller.
BUNDLES_KEPT = 20


@dataclass(frozen=True)
class BundleRecord:
    """The content of bundle.json: what the bundle beside it was built from.

    Attributes:
        content: the hash of the files in it.
        opa: the version of OPA.
        sha256: of the bundle itself; empty before it is built.
    """

    revision: str
    content: str
    key_id: str
    opa: str = OPA_VERSION
    sha256: str = ""


@dataclass(frozen=True)
class BuildResult:
    """What a build did.

    Attributes:
        changed: a bundle was written, or would be without a dry run.
        sha256: of the bundle; empty in a dry run that would write one.
    """

    revision: str
    bundle: str
    changed: bool
    sha256: str = ""


def build_bundle(
    policies: Path,
    out: Path,
    *,
    opa: Path,
    key: str,
    key_id: str,
    overrides: dict[str, Any],
    dry_run: bool,
    tests: bool = True,
    report: Callable[[str], object],
) -> BuildResult:
    """Check the policies and write a signed bundle, unless the same bundle is there already.

    Args:
        policies: the folder of policies.
        out: the folder for bundle.tar.gz, bundle.json and the copies in published/.
        key: PEM private key on the curve P-256.
        key_id: the name of the key in the configuration of OPA.
        tests: run the tests of the policies. They do not run later for a bundle built without them.
        report: gets the summary of the tests.

    Raises:
        PolicyError: a check fails, or OPA cannot build the bundle.
    """
    bundle, record_file = out / "bundle.tar.gz", out / "bundle.json"
    with tree_with_overrides(policies, overrides, opa) as tree:
        content = content_hash(tree)
        revision = revision_of(policies, content, overridden=bool(overrides))
        record = BundleRecord(revision, content, key_id)
        result = BuildResult(revision, str(bundle.resolve()), changed=True)
        if sha256 := _sha256_of_same(record, bundle, record_file):
            return replace(result, changed=False, sha256=sha256)
        check_all(tree, report, tests=tests)
        if dry_run:
            return result
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        packed = _pack(tree, record, key)
        sha256 = hashlib.sha256(packed).hexdigest()
        (out / ".bundle.tar.gz").write_bytes(packed)
        (out / ".bundle.tar.gz").replace(bundle)
        record_file.write_text(json.dumps(asdict(replace(record, sha256=sha256)), indent=2) + "\n")
        keep_bundle(packed, out / "published" / f"{revision}.tar.gz")
        return replace(result, sha256=sha256)


def content_hash(tree: PolicyTree) -> str:
    """Return the SHA-256 of the names and contents of the files that go into a bundle."""
    digest = hashlib.sha256()
    for path in tree.bundle_files():
        content = (tree.folder / path).read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def revision_of(policies: Path, content: str, *, overridden: bool) -> str:
    """Return the name of the policies: the commit that last changed them, else their hash.

    Uncommitted changes and overrides add a part of the hash.
    """
    commit = _git(policies, "log", "-1", "--format=%H")
    if not commit:
        return f"content-{content[:12]}"
    state = "-dirty" if _git(policies, "status", "--porcelain") else ""
    state += "-inventory" if overridden else ""
    return commit[:12] + (f"{state}.{content[:8]}" if state else "")


def _git(policies: Path, *arguments: str) -> str | None:
    """Return the output of git for the files that go into a bundle, None without git or repository."""
    command = ["git", *arguments, "--", "mcp", "config", ":(exclude)*_test.rego"]
    try:
        done = subprocess.run(command, cwd=policies, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _sha256_of_same(record: BundleRecord, bundle: Path, record_file: Path) -> str | None:
    """Return the checksum of the bundle that is there if it was built from the same, else None."""
    try:
        sha256 = hashlib.sha256(bundle.read_bytes()).hexdigest()
        known = json.loads(record_file.read_text())
    except (OSError, ValueError):
        return None
    return sha256 if known == asdict(replace(record, sha256=sha256)) else None


def _pack(tree: PolicyTree, record: BundleRecord, key: str) -> bytes:
    """Return the signed bundle, after its canary decision has passed."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        stage, private = Path(scratch) / "stage", Path(scratch) / "private"
        for path in tree.bundle_files():
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree.folder / path, stage / path)
        manifest = {
            "revision": record.revision,
            "roots": ROOTS,
            "rego_version": 1,
            "metadata": {"protocol": PROTOCOL},
        }
        (stage / ".manifest").write_text(json.dumps(manifest))
        private.mkdir(mode=0o700)
        claims_file, key_file = private / "claims.json", private / "key.pem"
        claims_file.write_text(json.dumps({"keyid": record.key_id, "scope": "write"}))
        key_file.touch(mode=0o600)
        key_file.write_text(key)
        bundle = Path(scratch) / "bundle.tar.gz"
        tree.opa_output(
            "The bundle cannot be built",
            *("build", "--bundle", ".", "--output", str(bundle), "--signing-alg", "ES256"),
            *("--capabilities", str(tree.folder / "capabilities.json")),
            *("--signing-key", str(key_file), "--claims-file", str(claims_file)),
            cwd=stage,
        )
        check_canary(tree, bundle)
        return bundle.read_bytes()


def keep_bundle(packed: bytes, copy: Path) -> None:
    """Keep a bundle by its revision: the audit names revisions, and git alone may not restore one."""
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    copy.write_bytes(packed)
    newest_first = sorted(copy.parent.glob("*.tar.gz"), key=lambda path: -path.stat().st_mtime_ns)
    for old in newest_first[BUNDLES_KEPT:]:
        old.unlink()
