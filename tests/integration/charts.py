"""The Helm chart as rendered objects, and a rendered pod whose containers run as processes."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.integration.clusters import programs
from tests.integration.servers import Server, opa_program

__all__ = ["CHART", "Container", "PodVolumes", "helm", "named", "render"]

_ROOT = Path(__file__).resolve().parents[2]
CHART = _ROOT / "deploy/helm/enterprise-mcp"


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm and return what it did."""
    return subprocess.run(
        [str(programs() / "helm"), *arguments], capture_output=True, text=True, check=False
    )


def render(directory: Path, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of the chart with these values.

    Args:
        directory: where the file of the values is written.
    """
    file = directory / "values.yaml"
    file.write_text(yaml.safe_dump(dict(values)))
    done = helm(*("template", "mcp", str(CHART), "--namespace", "mcp-system", "-f", str(file)))
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def named(objects: Iterable[Mapping[str, Any]], kind: str, name: str | None = None) -> Any:
    """Return the one object of that kind, or of that kind and name."""
    (found,) = (
        each
        for each in objects
        if each["kind"] == kind and name in (None, each["metadata"]["name"])
    )
    return found


class PodVolumes:
    """The volumes of a pod as directories.

    Args:
        template: the pod template.
        objects: those that the volumes may name.
    """

    def __init__(
        self, directory: Path, template: Mapping[str, Any], objects: Iterable[Mapping[str, Any]]
    ) -> None:
        self.spec = template["spec"]
        self._directory = directory
        objects = list(objects)
        containers = [*self.spec.get("initContainers", ()), *self.spec["containers"]]
        mounts = [mount for each in containers for mount in each["volumeMounts"]]
        self._places = {each["mountPath"]: directory / each["name"] for each in mounts}
        for volume in self.spec["volumes"]:
            place = directory / volume["name"]
            place.mkdir(parents=True)
            for name, content in _files(volume, objects).items():
                text = self.here(content.decode()).encode() if _is_text(content) else content
                (place / name).write_bytes(text)

    def here(self, text: str) -> str:
        """Return a text with the directories in place of the paths in the containers."""
        paths = "|".join(map(re.escape, sorted(self._places, key=len, reverse=True)))
        return re.sub(f"(?:{paths})(?![^/])", lambda found: str(self._places[found[0]]), text)

    def container(self, name: str) -> Container:
        """Return a container, not yet started."""
        containers = [*self.spec.get("initContainers", ()), *self.spec["containers"]]
        (spec,) = (each for each in containers if each["name"] == name)
        return Container(self._directory / f"{name}.container", spec, self)


def _files(volume: Mapping[str, Any], objects: list[Mapping[str, Any]]) -> dict[str, bytes]:
    if "configMap" in volume:
        found = named(objects, "ConfigMap", volume["configMap"]["name"])
        files = {name: text.encode() for name, text in found.get("data", {}).items()}
        binary = found.get("binaryData", {})
        return files | {name: base64.b64decode(text) for name, text in binary.items()}
    if "secret" in volume:
        found = named(objects, "Secret", volume["secret"]["secretName"])
        files = {name: text.encode() for name, text in found["stringData"].items()}
        items = volume["secret"].get("items")
        return {each["path"]: files[each["key"]] for each in items} if items else files
    assert "emptyDir" in volume
    return {}


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


class Container(Server):
    """A container of a pod as a process of this machine; ready by its startup probe."""

    def __init__(self, directory: Path, spec: Mapping[str, Any], volumes: PodVolumes) -> None:
        super().__init__(directory)
        self._spec = spec
        self._volumes = volumes

    def command(self) -> list[str]:
        start = {
            "opa": [opa_program()],
            "server": [sys.executable, "-m", "mcp_server"],
            "migrations": [sys.executable, "-m", "mcp_server", "db", "upgrade"],
        }
        environment = [
            f"{each['name']}={self._volumes.here(each.get('value', 'pod-1'))}"
            for each in self._spec.get("env", ())
        ]
        arguments = [self._volumes.here(each) for each in self._spec["args"]]
        return ["env", *environment, *start[self._spec["name"]], *arguments]

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(),
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    def ready(self) -> bool:
        return self.passes("startupProbe")

    def passes(self, probe: str) -> bool:
        """Whether a probe of the container succeeds now."""
        get = self._spec[probe]["httpGet"]
        (port,) = (
            each["containerPort"] for each in self._spec["ports"] if each["name"] == get["port"]
        )
        headers = {each["name"]: each["value"] for each in get.get("httpHeaders", ())}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{get['path']}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(200 <= answer.status < 400)
        except OSError:
            return False
