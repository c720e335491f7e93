"""scripts/suites: what the end of the output tells to those who see nothing else of it."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "suites"

_REPORT = """<?xml version="1.0"?>
<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1">
<testcase classname="tests.integration.test_a" name="test_good"/>
<testcase classname="tests.integration.test_a" name="test_left_out"><skipped/></testcase>
<testcase classname="tests.integration.test_a" name="test_bad">
<failure message="AssertionError: assert 1 == 2&#10; + where 1 is">a long trace</failure></testcase>
<testcase classname="tests.integration.test_b" name="test_worse">
<error message="failed on setup with OSError">a long trace</error></testcase>
</testsuite></testsuites>
"""

_PLAYBOOK = """
TASK [redis : verify | Wait for the port] ****************************************
changed: [cache1]

TASK [mcp_server : activate | Fail because the node was not changed] *****************
\x1b[31mfatal: [mcp1]: FAILED! => \x1b[0m
    changed: false
    msg: mcp1 did not become ready

PLAY RECAP *********************************************************************
CRITICAL Ansible return code was 2
"""


@pytest.fixture(scope="module")
def suites() -> ModuleType:
    loader = SourceFileLoader("suites", str(_SCRIPT))
    spec = importlib.util.spec_from_loader("suites", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["suites"] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.xml"


def end_of(
    suites: ModuleType, file: Path, *, status: int, output: str = "", **step: object
) -> list[str]:
    """Return the lines of the summary of one step."""
    outcome = suites.judge(suites.Step("a step", ("true",), **step), status, output, file, 1.0)
    return str(suites.summary([outcome])).splitlines()


def test_failed_tests_are_named_with_the_first_line_of_their_message(
    suites: ModuleType, report: Path
) -> None:
    report.write_text(_REPORT)

    lines = end_of(suites, report, status=1, output="noise", report=True)

    assert lines[-6:] == [
        "",
        "a step:",
        "  tests.integration.test_a.test_bad: AssertionError: assert 1 == 2",
        "  tests.integration.test_b.test_worse: failed on setup with OSError",
        "",
        "1 passed, 2 failed, 1 skipped",
    ]


def test_a_step_without_a_report_shows_its_last_lines(suites: ModuleType, report: Path) -> None:
    output = "\n".join(f"line {number}" for number in range(40))

    lines = end_of(suites, report, status=1, output=output)

    assert lines[-18:] == [
        "a step:",
        *(f"  line {number}" for number in range(25, 40)),
        "",
        "0 passed, 1 failed",
    ]


def test_the_task_of_a_playbook_that_failed_is_kept(suites: ModuleType, report: Path) -> None:
    lines = end_of(suites, report, status=2, output=_PLAYBOOK, report=True)

    assert lines[-7:] == [
        "a step:",
        "  TASK [mcp_server : activate | Fail because the node was not changed]",
        "    fatal: [mcp1]: FAILED! =>",
        "        changed: false",
        "        msg: mcp1 did not become ready",
        "",
        "0 passed, 1 failed",
    ]


def test_what_passed_is_only_counted(suites: ModuleType, report: Path) -> None:
    lines = end_of(suites, report, status=0, output=_PLAYBOOK)

    assert lines[-2:] == ["a step" + " " * 26 + "1       0        0        1", "1 passed, 0 failed"]


def test_what_tests_measured_is_told_before_the_count(suites: ModuleType, report: Path) -> None:
    measured = '<properties><property name="pods" value="5 ms"/></properties>'
    report.write_text(
        f'<testsuite tests="1"><testcase name="test_it">{measured}</testcase></testsuite>'
    )

    lines = end_of(suites, report, status=0, report=True)

    assert lines[-3:] == ["pods: 5 ms", "", "1 passed, 0 failed"]


def test_the_slowest_tests_of_all_suites_are_named_before_the_count(
    suites: ModuleType, tmp_path: Path
) -> None:
    outcomes = []
    for step, offset in (("one", 0.0), ("two", 0.5)):
        report = tmp_path / f"{step}.xml"
        cases = "".join(
            f'<testcase classname="tests.{step}" name="test_{n}" time="{n + offset}"/>'
            for n in range(25)
        )
        report.write_text(f'<testsuite tests="25">{cases}</testsuite>')
        argv = ("true",)
        outcomes.append(suites.judge(suites.Step(step, argv, report=True), 0, "", report, 1.0))

    lines = str(suites.summary(outcomes)).splitlines()

    start = lines.index("the slowest tests (1 s or more, 30 at most):")
    named = lines[start + 1 : -2]
    assert len(named) == 30
    assert named[:3] == [
        "    24.5 s  tests.two.test_24",
        "    24.0 s  tests.one.test_24",
        "    23.5 s  tests.two.test_23",
    ]
    assert named[-1] == "    10.0 s  tests.one.test_10"
    assert lines[-2:] == ["", "50 passed, 0 failed"]


def test_quick_tests_are_not_named_as_slow(suites: ModuleType, report: Path) -> None:
    report.write_text('<testsuite tests="1"><testcase name="test_it" time="0.999"/></testsuite>')

    lines = end_of(suites, report, status=0, report=True)

    assert not any("slow" in line for line in lines)


def test_a_test_suite_without_a_test_has_failed(suites: ModuleType, report: Path) -> None:
    lines = end_of(suites, report, status=0, output="collected 0 items", report=True)

    assert lines[-1] == "0 passed, 1 failed"


def test_tests_that_the_output_counts_are_counted(suites: ModuleType, report: Path) -> None:
    lines = end_of(suites, report, status=0, output="71 tests passed", said=r"(\d+) tests passed")

    assert lines[-1] == "71 passed, 0 failed"


def test_lines_of_steps_that_run_side_by_side_name_their_step(
    suites: ModuleType, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [suites.Step(name, ("echo", f"output of {name}")) for name in ("one", "two")]
    monkeypatch.setattr(suites, "REPORTS", _SCRIPT.parent / "no-such-directory")

    outcomes = suites.run_suite(suites.Suite(steps))

    assert {outcome.name for outcome in outcomes} == {"one", "two"}
    lines = capfd.readouterr().out.splitlines()
    assert lines[1] == "==> one, two"
    assert sorted(re.sub(r"\d+ s", "N s", line) for line in lines[2:]) == [
        "ok   one (N s)",
        "ok   two (N s)",
        "one         | output of one",
        "two         | output of two",
    ]
