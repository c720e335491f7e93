"""The module enterprise.mcp.loaded_files: the next run loads what a run has written and not loaded."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, ROOT, run_play

ROLES = ["base", "mcp_server", "nginx", "node_exporter", "opa", "postgres", "prometheus", "redis"]


class Service:
    """A service and its role, which compares and writes settings; a handler copies them to `loaded`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.settings, self.loaded = folder / "settings", folder / "loaded"
        self.unit, self.restarts = folder / "unit", folder / "restarts"
        self.unit.write_text("unit")
        self.restarts.touch()
        self.said = ""

    def run(self, content: str, *arguments: str, end: str = "") -> tuple[bool, int]:
        """Run the play; return whether it succeeded and how many tasks changed something.

        Args:
            end: `handler` lets the load fail, `before` ends the run before any handler.
        """
        loads = {"Reload it": [str(self.settings)], "Restart it": [str(self.unit)]}
        files = {"loads": loads, "directory": str(self.notes)}
        play: list[dict[str, Any]] = [
            {
                "enterprise.mcp.loaded_files": files,
                "register": "looked",
                "changed_when": False,
            },
            {
                "ansible.builtin.debug": {"msg": "{{ item }}: not what was loaded"},
                "loop": "{{ looked.stale }}",
                "changed_when": True,
                "notify": "{{ item }}",
            },
            {
                "ansible.builtin.copy": {"content": content, "dest": str(self.settings)},
                "notify": "Reload it",
            },
            {"ansible.builtin.fail": {}, "when": end == "before"},
        ]
        load = f"test '{end}' != handler && cp {self.settings} {self.loaded}"
        restart = f"echo >>{self.restarts}"
        # Not `shell`: `raw` starts no Python.
        handlers: list[dict[str, Any]] = [
            {"name": "Restart", "ansible.builtin.raw": restart, "listen": "Restart it"},
            {"name": "Load", "ansible.builtin.raw": load, "listen": "Reload it"},
            {
                "name": "Note",
                "enterprise.mcp.loaded_files": {**files, "loaded": True},
                "changed_when": False,
                "listen": list(loads),
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
        self.said = done.stdout
        return done.returncode == 0, int(changed[1])

    @property
    def notes(self) -> Path:
        return self.folder / "notes"

    @property
    def in_force(self) -> str:
        return self.loaded.read_text()

    @property
    def starts(self) -> int:
        return self.restarts.read_text().count("\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service that has loaded its first settings, with a copy of its folder beside it."""
    service = Service(tmp_path_factory.mktemp("installed") / "service")
    assert service.run("one")[0]
    shutil.copytree(service.folder, service.folder.with_name("copy"))
    return service


@pytest.fixture
def service(installed: Service) -> Service:
    """The installed service as it was after its first run."""
    shutil.rmtree(installed.folder)
    shutil.copytree(installed.folder.with_name("copy"), installed.folder)
    return Service(installed.folder)


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_a_first_installation_says_nothing_of_what_was_loaded(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    service = Service(tmp_path)

    done, changed = service.run("one", *arguments)

    assert done
    assert "not what was loaded" not in service.said
    # The file and its load, which a check run only announces; the unit is not written by the play.
    assert changed == (1 if arguments else 2)
    assert service.run("one", *arguments)[0]


@pytest.mark.parametrize("end", ["before", "handler"])
def test_what_a_first_run_did_not_get_to_is_done_by_the_next(tmp_path: Path, end: str) -> None:
    service = Service(tmp_path)
    cut, _ = service.run("one", end=end)
    first = service.said

    done, _ = service.run("one")

    assert (cut, done, service.in_force) == (False, True, "one")
    assert "not what was loaded" not in first
    assert "Reload it: not what was loaded" in service.said
    assert service.run("one") == (True, 0)


def test_files_without_a_note_of_their_load_are_loaded(service: Service) -> None:
    for note in service.notes.iterdir():
        note.unlink()
    service.loaded.write_text("something else")

    service.run("one")

    assert "Reload it: not what was loaded" in service.said
    assert service.in_force == "one"


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


def test_what_two_runs_have_not_loaded_is_loaded_by_the_third(service: Service) -> None:
    service.run("two", end="before")
    service.run("two", end="handler")

    service.run("two")

    assert service.in_force == "two"


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


def test_what_asks_for_a_reload_restarts_nothing(service: Service) -> None:
    before = service.starts
    service.run("two", end="before")
    service.run("two")
    after_the_settings = service.starts
    service.unit.write_text("another unit")
    service.run("two")

    assert (after_the_settings, service.starts) == (before, before + 1)


def test_what_is_no_list_of_files_is_refused_by_name(tmp_path: Path) -> None:
    module = {"enterprise.mcp.loaded_files": {"loads": {"Reload it": "/etc/it.conf"}}}

    done = run_play(tmp_path, [module], inventory={"all": {"hosts": {"a1": {}}, "vars": LOCAL}})

    assert done.returncode != 0
    assert "loads: Reload it needs a list of files, not '/etc/it.conf'" in done.stdout


@pytest.mark.parametrize("role", ROLES)
def test_each_role_looks_first_and_notes_last(role: str) -> None:
    first = "tasks/inspect.yml" if role == "opa" else "tasks/configure.yml"
    parts = ("vars/main.yml", first, "handlers/main.yml")
    variables, tasks, handlers = (
        yaml.safe_load((ROOT / "roles" / role / part).read_text()) for part in parts
    )
    loads, note = variables[f"__{role}_loads"], handlers[-1]
    look, tell = tasks[:2]

    assert "loaded" not in look["enterprise.mcp.loaded_files"]
    assert f"{look['register']}.stale" in tell["loop"]
    assert tell["changed_when"] is True
    assert tell["notify"] == "{{ item }}"
    assert note["enterprise.mcp.loaded_files"]["loaded"] is True
    assert set(loads) == set(note["listen"])
