"""scripts/role_docs: how README.md shows defaults, and which faults of a role are refused."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent for path in ROOT.glob("roles/*/README.md"))
SPECS = """
argument_specs:
  main:
    short_description: A cache
    options:
      cache_port: {description: TCP port., type: int}
      cache_address: {description: Address to listen on., type: str}
"""
DEFAULTS = 'cache_port: 6379\ncache_address: "{{ base_address }}"\n'
EXAMPLES = """
examples:
  minimal: "- hosts: cache"
  typical: "cache_port: 6380"
"""


@pytest.fixture(scope="module")
def role_docs() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("role_docs", str(ROOT / "scripts" / "role_docs"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


def render(
    role_docs: ModuleType, folder: Path, *, defaults: str = DEFAULTS, readme: str = EXAMPLES
) -> str:
    role = folder / "cache"
    for name, text in {
        "meta/argument_specs.yml": SPECS,
        "meta/readme.yml": readme,
        "defaults/main.yml": defaults,
    }.items():
        (role / name).parent.mkdir(parents=True, exist_ok=True)
        (role / name).write_text(text)
    rendered: str = role_docs.render(role_docs.read_role(role))
    return rendered


def test_a_default_is_shown_as_it_is_set_or_in_the_words_of_the_role(
    role_docs: ModuleType, tmp_path: Path
) -> None:
    internal = "cache_port: 6379\ncache_address: '{{ __cache_address }}'\n"
    phrases = f"defaults:\n  cache_address: the host's C(base_address)\n{EXAMPLES}"

    shown = render(role_docs, tmp_path)
    told = render(role_docs, tmp_path, defaults=internal, readme=phrases)

    assert "| `cache_port` | int | `6379` | TCP port. |" in shown
    assert "| `cache_address` | str | `{{ base_address }}` | Address to listen on. |" in shown
    assert "| `cache_address` | str | the host's `base_address` | Address to listen on. |" in told


def test_an_internal_default_without_words_is_refused(
    role_docs: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(role_docs.RoleError, match="the default of cache_address names an internal"):
        render(role_docs, tmp_path, defaults="cache_address: '{{ __cache_address }}'\n")


@pytest.mark.parametrize(
    ("readme", "fault"),
    [
        ("", "examples must be minimal and typical"),
        (EXAMPLES.replace("cache_port", "cache_prot"), "cache_prot not in meta/argument_specs"),
        (f"defaults:\n  cache_size: all\n{EXAMPLES}", "cache_size not in meta/argument_specs"),
    ],
)
def test_a_readme_file_that_does_not_fit_the_role_is_refused(
    role_docs: ModuleType, tmp_path: Path, readme: str, fault: str
) -> None:
    with pytest.raises(role_docs.RoleError, match=fault):
        render(role_docs, tmp_path, readme=readme)


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_the_comment_of_a_default_says_what_the_readme_says(role: Path) -> None:
    readme = (role / "README.md").read_text()
    meanings = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", readme, re.MULTILINE))
    text = (role / "defaults/main.yml").read_text()

    comments = {
        name: " ".join(line.removeprefix("# ") for line in comment.splitlines())
        for comment, name in re.findall(r"((?:^# .*\n)+)^(\w+):", text, re.MULTILINE)
    }

    assert set(re.findall(r"^(\w+):", text, re.MULTILINE)) == set(comments)
    for name, comment in comments.items():
        assert meanings[name].replace("`", "").replace("\\|", "|").startswith(comment), name
