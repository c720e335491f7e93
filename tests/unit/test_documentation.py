"""What the documents tell a reader to type or to open is there, as scripts/bootstrap leaves it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.policies import POLICYCTL, ROOT

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md"))
)
# Programs of .venv: without their path, a shell finds none of them, or another version.
OURS = ("ansible", "mcpctl", "policyctl", "opa ", "python ", "pytest", "molecule", "ruff", "mypy")
TOP = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in {".git", ".venv"}}
# Made while the product is used: by make demo, and by the reader for an inventory of his own.
MADE = (".lab/", "inventories/NAME/", "inventories/YOURS", "policies/mcp/hours/")
MADE_FOR_A_NEW_PACKAGE = ("policies/config/hours/", "policies/schemas/hours/")


def blocks(text: str) -> Iterator[str]:
    """Yield the contents of fenced blocks that a reader types."""
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    yield from (block for language, block in fenced if language in {"", "sh"})


def spans(text: str) -> Iterator[str]:
    """Yield what stands in backquotes outside of fenced blocks."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))


def commands(text: str) -> Iterator[str]:
    """Yield what is typed: lines of blocks, continued ones joined, and spans with an argument."""
    for block in blocks(text):
        if re.search(
            r"^ *(\.venv/bin|scripts/|make |curl |ssh |TOKEN=|ansible|opa |python)", block
        ):
            without_input = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.DOTALL | re.MULTILINE)
            for line in without_input.replace("\\\n", " ").splitlines():
                yield " ".join(line.partition("  #")[0].split())
    yield from (span for span in spans(text) if " " in span)


def paths(text: str) -> Iterator[str]:
    """Yield what looks like a path of this repository."""
    words = [word for command in commands(text) for word in command.split()]
    for word in (*spans(text), *words):
        path = word.partition(":")[0].strip("`'\",")
        made = path.startswith((*MADE, *MADE_FOR_A_NEW_PACKAGE))
        if (
            "/" in path
            and path.split("/")[0] in TOP
            and not made
            and not set(path) & set("*<>{}… ")
        ):
            yield path


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_path_that_is_named_exists(document: Path) -> None:
    text = (ROOT / document).read_text()

    # A pattern in backquotes can look like a link.
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", re.sub(r"`[^`]*`", "", text))

    missing = [link for link in linked if not (ROOT / document.parent / link).exists()]
    missing += [path for path in paths(text) if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_package_to_install_has_the_version_that_is_tested(document: Path) -> None:
    lock = (ROOT / "requirements/dev.lock").read_text()
    tested = set(re.findall(r"^[\w.-]+==[\w.!+-]+", lock, re.MULTILINE))

    asked = {
        word
        for command in commands((ROOT / document).read_text())
        for words in re.findall(r"\bpip3? install (.+)", command)
        for word in words.split()
        if not word.startswith("-")
    }

    assert asked - tested == set()


def test_the_readme_says_what_a_client_needs() -> None:
    assert "pip install mcp==" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    text = (ROOT / document).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = {
        match
        for command in (*commands(text), *spans(text))
        for match in re.findall(r"^(?:.*\$\()?make (?:-s )?([a-z-]+)", command)
    }

    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_command_can_be_typed_as_it_stands(document: Path) -> None:
    text = (ROOT / document).read_text()

    # In prose `mypy --strict` names a rule; what has a path or a file in it is there to be typed.
    bare = [
        command
        for command in commands(text)
        if command.startswith(OURS) and re.search(r"/|\.(yml|yaml|json)\b", command)
    ]

    assert bare == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_page_is_short_enough_to_read(document: Path) -> None:
    text = (ROOT / document).read_text()

    # The reference of the tools is generated, and searched rather than read.
    assert document == Path("docs/tools.md") or len(text.splitlines()) <= 250


def test_the_documents_name_paths_and_commands_at_all() -> None:
    texts = [(ROOT / document).read_text() for document in DOCUMENTS]

    assert len({path for text in texts for path in paths(text)}) > 40
    assert sum(command.startswith(".venv/bin/") for text in texts for command in commands(text)) > 8


def test_the_decision_that_is_tried_by_hand_is_an_allowing_one() -> None:
    text = (ROOT / "docs/policy-testing.md").read_text()
    (block,) = (block for block in blocks(text) if "data.mcp.decision.authorize" in block)
    line, request, _ = re.split(r"<<'JSON'\n|^JSON$", block, flags=re.MULTILINE)
    command = shlex.split(line.replace("\\\n", " ").replace("--format pretty", "--format json"))

    done = subprocess.run(
        [str(POLICYCTL), *command[1:]],
        cwd=ROOT,
        input=request,
        capture_output=True,
        text=True,
        check=False,
    )

    assert command[0] == ".venv/bin/policyctl"
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"][0]["expressions"][0]["value"]["effect"] == "count"


@pytest.mark.parametrize(
    "module",
    sorted(ROOT.glob("collections/ansible_collections/enterprise/mcp/plugins/modules/*.py")),
    ids=lambda path: path.stem,
)
def test_ansible_doc_can_read_what_a_module_says_of_itself(module: Path) -> None:
    texts = re.findall(
        r'^(?:DOCUMENTATION|EXAMPLES|RETURN) = r"""(.*?)"""',
        module.read_text(),
        re.MULTILINE | re.DOTALL,
    )

    assert len(texts) == 3
    assert yaml.safe_load(texts[0])["module"] == module.stem
    assert all(yaml.safe_load(text) is not None for text in texts)
