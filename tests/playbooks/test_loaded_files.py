"""The module enterprise.mcp.loaded_files: what a run did not tell a service, the next one does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, ROOT, run_play

ROLES = ["mcp_server", "nginx", "node_exporter", "opa", "postgres", "prometheus", "redis"]


class Service:
    """A play as a role is one: it looks, writes settings, and a handler loads them into `loaded`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings, self.loaded = folder / "settings", folder / "loaded"

    def run(self, content: str, *arguments: str, end: str = "") -> tuple[bool, int]:
        """Run the play; return whether it succeeded and how many tasks changed something.

        Args:
            end: `handler` lets the load fail, `before` ends the run before any handler.
        """
        files = {"name": "Reload it", "files": [str(self.settings)], "directory": str(self.notes)}
        play: list[dict[str, Any]] = [
            {"enterprise.mcp.loaded_files": files, "notify": "Reload it"},
            {
                "ansible.builtin.copy": {"content": content, "dest": str(self.settings)},
                "notify": "Reload it",
            },
            {"ansible.builtin.fail": {}, "when": end == "before"},
        ]
        load = f"test '{end}' != handler && cp {self.settings} {self.loaded}"
        handlers: list[dict[str, Any]] = [
            {"name": "Load", "ansible.builtin.shell": load, "listen": "Reload it"},
            {
                "name": "Note",
                "enterprise.mcp.loaded_files": {**files, "loaded": True},
                "changed_when": False,
                "listen": "Reload it",
            },
        ]
        role = self.folder / "roles/service"
        for part, content_of in (("tasks", play), ("handlers", handlers)):
            (role / part).mkdir(parents=True, exist_ok=True)
            (role / part / "main.yml").write_text(yaml.safe_dump(content_of))
        done = run_play(
            self.folder,
            [{"ansible.builtin.import_role": {"name": str(role)}}],
            *arguments,
            inventory={"all": {"hosts": {"a1": {}}, "vars": LOCAL}},
        )
        changed = re.search(r"changed=(\d+)", done.stdout)
        assert changed is not None, done.stdout + done.stderr
        return done.returncode == 0, int(changed[1])

    @property
    def notes(self) -> Path:
        return self.folder / "notes"

    @property
    def in_force(self) -> str:
        return self.loaded.read_text()


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service that has loaded its first settings."""
    service = Service(tmp_path)
    assert service.run("one")[0]
    return service


def test_a_run_that_changes_nothing_tells_nothing(service: Service) -> None:
    service.loaded.unlink()

    assert service.run("one") == (True, 0)
    assert not service.loaded.exists()


@pytest.mark.parametrize("end", ["before", "handler"])
def test_what_a_run_did_not_get_to_is_done_by_the_next(service: Service, end: str) -> None:
    cut, _ = service.run("two", end=end)
    before = service.in_force

    done, changed = service.run("two")

    assert (cut, before, done, service.in_force) == (False, "one", True, "two")
    assert changed == 2  # that it has to be told, and the load
    assert service.run("two") == (True, 0)


def test_a_check_run_reports_it_and_leaves_it_to_the_next_run(service: Service) -> None:
    service.run("two", end="before")

    checked = service.run("two", "--check")

    assert checked == (True, 1)
    assert service.in_force == "one"
    assert service.run("two")[1] == 2
    assert service.in_force == "two"


def test_a_service_that_started_meanwhile_is_told_although_the_settings_are_as_before(
    service: Service,
) -> None:
    service.run("two", end="before")
    service.loaded.write_text("two")  # crashed, and started with what was there
    service.run("one", end="before")

    service.run("one")

    assert service.in_force == "one"


def test_files_that_another_changed_are_loaded(service: Service) -> None:
    service.settings.unlink()

    assert service.run("one") == (True, 3)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_looks_first_and_notes_last(role: str) -> None:
    first = "tasks/install.yml" if role == "opa" else "tasks/configure.yml"
    parts = ("vars/main.yml", first, "handlers/main.yml")
    variables, tasks, handlers = (
        yaml.safe_load((ROOT / "roles" / role / part).read_text()) for part in parts
    )
    loads, look, note = variables[f"__{role}_loads"], tasks[0], handlers[-1]

    assert "loaded" not in look["enterprise.mcp.loaded_files"]
    assert note["enterprise.mcp.loaded_files"]["loaded"] is True
    assert set(loads) == set(note["listen"])
