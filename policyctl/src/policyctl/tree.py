"""A folder of policies: its files, and OPA run on it."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from policyctl.data import OVERRIDES, merge_patch, parse_yaml
from policyctl.opa import PolicyError


class PolicyTree:
    """A folder named `policies` and the OPA binary that judges it.

    OPA runs in the folder above it, so that its messages name files as `policies/...`.

    Attributes:
        folder: the folder itself.
        overridden: the areas of policies/config into which overrides were merged.
        source: the author's folder when this one is a copy, else the same as `folder`.
    """

    def __init__(
        self,
        folder: Path,
        opa: Path,
        overridden: Collection[str] = (),
        source: Path | None = None,
    ) -> None:
        self.folder = folder
        self.overridden = overridden
        self.source = source or folder
        self._opa = opa

    def run_opa(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run OPA in the folder above the policies, or in `cwd`; return its result, good or bad."""
        return subprocess.run(
            [str(self._opa), *arguments],
            cwd=cwd or self.folder.parent,
            capture_output=True,
            text=True,
            check=False,
        )

    def opa_output(self, failure: str, *arguments: str, cwd: Path | None = None) -> str:
        """Return the standard output of OPA.

        Raises:
            PolicyError: OPA failed; the message is `failure` and what OPA printed.
        """
        done = self.run_opa(*arguments, cwd=cwd)
        if done.returncode != 0:
            raise PolicyError(f"{failure}:\n{(done.stderr + done.stdout).strip()}")
        return done.stdout

    def data_areas(self) -> list[str]:
        """Return the names of the areas of policy data: each has a schema."""
        return sorted(
            path.parent.name
            for path in (self.folder / "schemas").glob("*/schema.json")
            if path.parent.name not in ("input", "batch", "sign_in_input")
        )

    def data_file(self, area: str) -> Path:
        """Return the file of an area, which may be absent."""
        return self.folder / "config" / area / "data.yaml"

    def read_data(self, area: str) -> Any:
        """Return the data of an area, empty when there is no file; raise PolicyError for bad YAML."""
        file = self.data_file(area)
        if not file.exists():
            return {}
        return parse_yaml(file.read_text(), f"policies/config/{area}/data.yaml")

    def rule_files(self) -> list[Path]:
        """Return the rules that go into a bundle: those of mcp without their tests, sorted."""
        files = (self.folder / "mcp").rglob("*.rego")
        return sorted(path for path in files if not path.name.endswith("_test.rego"))

    def bundle_files(self) -> list[Path]:
        """Return the rules and data that go into a bundle, relative to the folder, sorted."""
        data = list((self.folder / "config").rglob("data.yaml"))
        return sorted(path.relative_to(self.folder) for path in self.rule_files() + data)


@contextlib.contextmanager
def tree_with_overrides(source: Path, overrides: dict[str, Any], opa: Path) -> Iterator[PolicyTree]:
    """Yield a copy of a folder of policies, named `policies`, with the overrides merged in.

    A PolicyError that leaves the context names files by the source's own name.

    Raises:
        PolicyError: the overrides name an unknown area, or one of them is not a mapping.
    """
    _check_overrides(source, overrides, PolicyTree(source, opa).data_areas())
    with tempfile.TemporaryDirectory(prefix="policies-") as scratch:
        folder = Path(scratch) / "policies"
        shutil.copytree(source, folder)
        tree = PolicyTree(folder, opa, overridden=overrides, source=source)
        try:
            for area, patch in overrides.items():
                merged = merge_patch(tree.read_data(area), patch)
                tree.data_file(area).parent.mkdir(exist_ok=True)
                tree.data_file(area).write_text(yaml.safe_dump(merged, sort_keys=True))
            yield tree
        except PolicyError as error:
            text = re.sub(r"(?<![\w/.-])policies/", f"{source.name}/", str(error))
            raise PolicyError(text) from error


def _check_overrides(source: Path, overrides: dict[str, Any], known: list[str]) -> None:
    for area, patch in overrides.items():
        if area not in known:
            raise PolicyError(
                f"{OVERRIDES}.{area} is not an area of the policy data; accepted are {', '.join(known)}"
            )
        if not isinstance(patch, dict):
            raise PolicyError(
                f"{OVERRIDES}.{area} must be a mapping, as {source.name}/config/{area}/data.yaml is"
            )
