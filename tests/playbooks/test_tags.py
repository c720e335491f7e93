"""Every verb works alone and can be left out: what a task reads is set by a task that runs with it.

No host is needed: the tasks of a role are read from its files, with the tags that they have by all that
imports them, and chosen as Ansible chooses them. What does reach this machine is each layer's preflight.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, ROOT, ansible_playbook, run_play

VERBS = ("preflight", "install", "configure", "service", "verify")
ROLES = (
    "firewall",
    "nginx",
    "node_exporter",
    "opa",
    "postgres",
    "prometheus",
    "redis",
    "mcp_server",
)
GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")
LAYERS = ("mcp_server", "nginx", "policies", "postgres", "prometheus", "redis")
_INCLUDES = ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks")
_FILTERS = runpy.run_path(
    str(ROOT / "collections/ansible_collections/enterprise/mcp/plugins/filter/tags.py")
)
choose_role, changing_steps = _FILTERS["choose_role"], _FILTERS["changing_steps"]


@dataclass(frozen=True)
class Task:
    """A task with all of its tags, its own variables and those of the blocks around it left out."""

    name: str
    tags: frozenset[str]
    text: str
    sets: frozenset[str]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tasks_of(role: str, file: str, tags: frozenset[str] = frozenset()) -> Iterator[Task]:
    """Yield the tasks of a file of a role, and of those that it imports or includes."""
    path = ROOT / "roles" / role / "tasks" / file
    for each in yaml.safe_load(path.read_text()) or []:
        yield from _tasks(role, each, tags)


def _tasks(role: str, each: dict[str, Any], tags: frozenset[str]) -> Iterator[Task]:
    mine = tags | set(as_list(each.get("tags", [])))
    own = {name: value for name, value in each.items() if name not in ("name", "block", "rescue")}
    registered = own.pop("register", None)
    facts = own.get("ansible.builtin.set_fact", {})
    looped = own.get("loop_control", {}).get("loop_var")
    sets = {*facts, *own.get("vars", {}), *filter(None, (registered, looped))}
    yield Task(
        each.get("name", ""), frozenset(mine), yaml.safe_dump(own, width=9999), frozenset(sets)
    )
    for part in ("block", "rescue"):
        for inner in each.get(part, []):
            yield from _tasks(role, inner, frozenset(mine))
    for include in _INCLUDES:
        if include in each:
            what = each[include]
            file = what if isinstance(what, str) else what["file"]
            yield from tasks_of(role, file, frozenset(mine))


def chosen(task: Task, run: frozenset[str], skip: frozenset[str]) -> bool:
    """Tell whether Ansible runs a task with --tags and --skip-tags."""
    return bool(task.tags & run or "all" in run or "always" in task.tags) and not task.tags & skip


def needed(role: str, text: str) -> set[str]:
    """Return the role's own variables that a text reads as if they were set."""
    name = rf"\b(__{role}_\w+)"
    # Guarded is what stands right before the word, with the parts of it that are read.
    guard = r"(?:\.\w+|\[[^\]]*\]|\))*\s*(?:\|\s*default\b|is (?:not )?defined\b)"
    guarded = set(re.findall(name + guard, text))
    return set(re.findall(name, text)) - guarded


def missing(role: str, run: frozenset[str], skip: frozenset[str]) -> set[str]:
    """Return the role's own variables that nothing has set when a task reads them."""
    parts = [ROOT / f"roles/{role}/{part}/main.yml" for part in ("defaults", "vars")]
    variables: dict[str, Any] = {}
    for path in parts:
        variables |= yaml.safe_load(path.read_text())
    tasks = [task for task in tasks_of(role, "main.yml") if chosen(task, run, skip)]
    there = {name for task in tasks for name in task.sets}
    open_names = {name for task in tasks for name in needed(role, task.text)}
    seen: set[str] = set()
    while open_names - seen:
        name = (open_names - seen).pop()
        seen.add(name)
        if name in variables and name not in there:
            open_names |= needed(role, yaml.safe_dump(variables[name], width=9999))
    return {name for name in seen if name not in there and name not in variables}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("role", ROLES)
def test_a_verb_alone_reads_nothing_that_was_not_set(role: str, verb: str) -> None:
    assert missing(role, frozenset({verb}), frozenset()) == set()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("role", ROLES)
def test_a_verb_can_be_left_out(role: str, verb: str) -> None:
    assert missing(role, frozenset({"all"}), frozenset({verb})) == set()


def test_a_variable_that_nothing_sets_would_be_found() -> None:
    text = "when: __nginx_a is changed or (__nginx_b).x[0] | default(1) and __nginx_c.x is defined"

    assert needed("nginx", text) == {"__nginx_a"}


@pytest.mark.parametrize(
    ("run", "skip"), [("service", ""), ("all", "install"), ("all", "configure")]
)
def test_a_server_is_restarted_only_with_what_the_inventory_says(run: str, skip: str) -> None:
    """What it was restarted with is remembered by the inventory's values, so they are written."""
    written = {
        "write | Write the next configuration",
        "write | Write the next credentials",
        "write | Write the next unit",
    }
    tasks = list(tasks_of("mcp_server", "main.yml"))
    there = {
        task.name for task in tasks if chosen(task, frozenset({run}), frozenset({skip} - {""}))
    }

    assert written <= there
    assert "activate | Restart the server" in there


@pytest.mark.parametrize(
    ("arguments", "verbs"),
    [
        ((), ["install", "configure", "service"]),
        (("--tags", "{role}"), ["install", "configure", "service"]),
        (("--tags", "service,verify"), ["service"]),
        (("--skip-tags", "install,verify"), ["configure", "service"]),
        (("--tags", "{role}", "--skip-tags", "service"), ["install", "configure"]),
        (("--tags", "verify"), []),
        (("--tags", "preflight"), []),
    ],
)
@pytest.mark.parametrize("role", ["opa", "mcp_server"])
def test_a_role_knows_which_verbs_of_a_run_may_change_the_host(
    tmp_path: Path, role: str, arguments: tuple[str, ...], verbs: list[str]
) -> None:
    variables = str(ROOT / f"roles/{role}/vars/main.yml")
    told = {"msg": f"verbs {{{{ __{role}_verbs | sort | join(' ') }}}}."}

    done = run_play(
        tmp_path,
        [
            {"ansible.builtin.include_vars": variables, "tags": ["always"]},
            {"ansible.builtin.debug": told, "tags": ["always"]},
        ],
        *(argument.format(role=role) for argument in arguments),
        inventory={"all": {"hosts": {"a1": {}}, "vars": LOCAL}},
    )

    assert f"verbs {' '.join(sorted(verbs))}." in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("tags", "chosen"),
    [
        (["all"], True),
        (["tagged"], True),
        (["redis"], True),
        (["verify"], True),
        (["preflight"], True),
        (["nginx", "configure"], True),
        (["nginx"], False),
        (["publish"], False),
    ],
)
def test_a_run_chooses_a_role_by_its_tag_or_a_verb(tags: list[str], chosen: bool) -> None:
    assert choose_role(tags, "redis") is chosen


def test_a_role_may_have_more_tags() -> None:
    assert choose_role(["publish"], "opa", "publish")
    assert changing_steps(["policies"], ["service"], "opa", "policies") == ["install", "configure"]
    assert changing_steps(["publish"], [], "opa", "policies") == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "preflight"])
@pytest.mark.parametrize("role", ROLES)
def test_what_is_checked_before_a_change_is_checked_whichever_verb_is_left_out(
    role: str, verb: str
) -> None:
    checks = [task for task in tasks_of(role, "main.yml") if task.name.startswith("preflight | ")]
    skip = frozenset({verb})

    assert checks
    assert all(chosen(task, frozenset({"all"}), skip) for task in checks)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_reads_the_facts_whatever_the_tags(layer: str) -> None:
    plays = yaml.safe_load((ROOT / f"playbooks/{layer}.yml").read_text())
    facts = {"ansible.builtin.import_tasks": "tasks/facts.yml", "name": "Facts", "tags": ["always"]}

    for play in plays:
        if "hosts" in play:
            assert play["gather_facts"] is False
            assert facts in play.get("pre_tasks", []) or play["name"].startswith("Server nodes")


@pytest.mark.parametrize(
    "arguments", [("--tags", "preflight"), ("--skip-tags", "install,configure,service,verify")]
)
@pytest.mark.parametrize(
    "layer", [layer for layer in LAYERS if layer not in ("policies", "mcp_server")]
)
def test_a_layer_checks_a_host_with_a_verb_alone(
    tmp_path: Path, layer: str, arguments: tuple[str, str]
) -> None:
    hosts = {"all1": {"ansible_host": "192.0.2.1", "ansible_become": False, **LOCAL}}
    inventory = {"all": {"children": {name: {"hosts": hosts} for name in GROUPS}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))

    done = ansible_playbook(
        "-i", tmp_path / "hosts.yml", "--check", f"playbooks/{layer}.yml", *arguments
    )

    assert done.returncode == 0, done.stdout
    assert "TASK [facts | Gather the facts that the roles need]" in done.stdout
