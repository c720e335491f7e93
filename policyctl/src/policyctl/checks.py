"""The checks of a folder of policies; each raises PolicyError for policies that are not in order."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from policyctl.data import OVERRIDES
from policyctl.opa import PolicyError
from policyctl.tree import PolicyTree

# Functions that a policy must not call: they reach the network, read the environment of the process, or
# depend on a clock or on chance. A decision follows from its input and the bundle alone, so that it can
# be made again. Every function that OPA calls nondeterministic is forbidden as well.
FORBIDDEN_BUILTINS = (
    # They compare the dates of a certificate or a token with the clock, or draw the salt of a signature.
    "crypto.x509.parse_and_verify_certificates",
    "crypto.x509.parse_and_verify_certificates_with_options",
    "http.send",
    "io.jwt.decode_verify",
    "io.jwt.encode_sign",
    "io.jwt.encode_sign_raw",
    # They fetch the documents to which a schema refers.
    "json.match_schema",
    "json.verify_schema",
    "net.lookup_ip_addr",
    "opa.runtime",
    "rand.intn",
    "time.now_ns",
    "uuid.rfc4122",
)
# policies/lint is not part of a bundle, and its schemas refer to no other document.
ALLOWED_IN_LINT = ("json.match_schema",)
PACKAGES = ("mcp", "system", "lint", "fixtures")
_IGNORE = ("--ignore", "capabilities.json")


def check_all(tree: PolicyTree, report: Callable[[str], object], *, tests: bool = True) -> None:
    """Run every check, the cheap ones first; `report` gets the summary of the tests.

    Args:
        tests: run the tests of the policies, which take most of the time, and check the format. Without,
            only what a bundle needs to work is checked.
    """
    check_layout(tree)
    check_types(tree)
    check_deny_rules(tree)
    if tests:
        check_format(tree)
    check_data(tree)
    if tests:
        report(run_tests(tree))
    check_canary(tree)


def check_layout(tree: PolicyTree) -> None:
    """Require that OPA checks exactly the files that go into a bundle: it reads the whole folder."""
    faults = [
        f"policies/{path.relative_to(tree.folder)}: {fault}"
        for path in sorted(tree.folder.rglob("*"))
        if (fault := _layout_fault(tree.folder, path))
    ]
    if faults:
        raise PolicyError("These files would be checked but not published:\n" + "\n".join(faults))


def _layout_fault(folder: Path, path: Path) -> str | None:
    """Return why a file is in the wrong place, or None."""
    place = path.relative_to(folder)
    if path.suffix not in (".rego", ".json", ".yaml", ".yml") or not path.is_file():
        return None
    top = place.parts[0]
    if path.suffix != ".rego":
        known = place == Path("capabilities.json") or (
            len(place.parts) == 3
            and (top, place.name) in (("config", "data.yaml"), ("schemas", "schema.json"))
        )
        return None if known else "data belongs in policies/config/AREA/data.yaml"
    if top not in PACKAGES:
        return "rules belong in policies/mcp/PACKAGE"
    package = ".".join(place.parent.parts)
    declared = re.search(r"^package +(\S+)", path.read_text(), re.MULTILINE)
    if path.name.endswith("_test.rego"):
        is_test = declared is not None and declared[1].endswith("_test")
        return None if is_test else "the package of a test must end with _test"
    matches = declared is not None and declared[1] == package
    return None if matches else f"its package must be {package}"


def check_types(tree: PolicyTree) -> None:
    """Require that the policies compile: strict mode, types from the schemas, no forbidden function."""
    failure = "The policies do not compile"
    check = ("check", "--strict", "--schema", "policies/schemas", "--capabilities")
    published = [
        f"policies/{name}" for name in PACKAGES if name != "lint" and (tree.folder / name).is_dir()
    ]
    tree.opa_output(failure, *check, "policies/capabilities.json", *published)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(capabilities(tree, ALLOWED_IN_LINT), file)
        file.flush()
        tree.opa_output(failure, *check, file.name, *_IGNORE, "policies")


def capabilities(tree: PolicyTree, allowed: Collection[str] = ()) -> dict[str, Any]:
    """Return the capabilities of OPA without the forbidden functions, except the `allowed` ones."""
    known: dict[str, Any] = json.loads(
        tree.opa_output("OPA cannot list its capabilities", "capabilities", "--current")
    )
    known["builtins"] = [
        builtin
        for builtin in known["builtins"]
        if builtin["name"] in allowed
        or not (builtin.get("nondeterministic") or builtin["name"] in FORBIDDEN_BUILTINS)
    ]
    known["allow_net"] = []
    return known


def write_capabilities(tree: PolicyTree) -> None:
    """Write policies/capabilities.json for the OPA binary of the tree."""
    text = json.dumps(capabilities(tree), indent=1) + "\n"
    (tree.folder / "capabilities.json").write_text(text)


def check_deny_rules(tree: PolicyTree) -> None:
    """Require that every `deny` rule adds a reason from METADATA to a set.

    Any other value denies as well, but the server could not read the reasons in OPA's answer.
    """
    wrong = []
    for path in tree.rule_files():
        text, place = path.read_text(), path.relative_to(tree.folder)
        for rule in re.finditer(
            r"^(default\s+)?deny\b(?! contains reasons\.because\()", text, re.MULTILINE
        ):
            line = text.count("\n", 0, rule.start()) + 1
            wrong.append(
                f'policies/{place}:{line}: write "deny contains '
                'reasons.because(rego.metadata.chain(), [])" with the reason in the METADATA of the rule'
            )
    if wrong:
        raise PolicyError("These deny rules are not sets of reasons:\n" + "\n".join(wrong))


def check_format(tree: PolicyTree) -> None:
    """Require the format of `opa fmt`."""
    done = tree.run_opa("fmt", "--list", "policies")
    if done.returncode == 0 and not done.stdout.strip():
        return
    is_default = tree.source == Path("policies").absolute()
    option = "" if is_default else f"--policies {tree.source} "
    raise PolicyError(
        f"These files are not formatted; run `policyctl {option}opa fmt --write {tree.source.name}`:\n"
        + (done.stdout + done.stderr).strip()
    )


def check_data(tree: PolicyTree) -> None:
    """Require valid policy data: readable YAML without findings of policies/lint."""
    for area in tree.data_areas():
        tree.read_data(area)
    output = tree.opa_output(
        "The policy data cannot be read",
        *("eval", "--format", "json", *_IGNORE, "--data", "policies"),
        "data.lint.findings",
    )
    lines = []
    for finding in json.loads(output)["result"][0]["expressions"][0]["value"]:
        area = Path(finding["file"]).parent.name
        overrides = f" with {OVERRIDES}.{area}" if area in tree.overridden else ""
        lines.append(f"{finding['file']}{overrides}: {finding['path']}: {finding['message']}")
    if lines:
        raise PolicyError("The policy data is not valid:\n" + "\n".join(lines))


def run_tests(tree: PolicyTree) -> str:
    """Run the tests of the policies and require full coverage; return a summary of one line."""
    failure = "Tests of the policies fail"
    # The default limit of 5 s for each test is short for the property tests on a busy machine.
    test = ("test", "--timeout", "600s", *_IGNORE)
    # Without property tests, which cover no line that the other tests do not and would be slow to trace.
    others = (*test, "--ignore", "properties_test.rego")
    done = tree.run_opa(*others, "--coverage", "policies")
    if done.returncode != 0:
        # The output with coverage names no test that fails.
        tree.opa_output(failure, *others, "policies")
        raise PolicyError(f"{failure}:\n{(done.stderr + done.stdout).strip()}")
    coverage = json.loads(done.stdout)
    gaps = [
        f"{name}:{lines['start']['row']}: no test covers this line"
        for name, file in coverage["files"].items()
        for lines in file.get("not_covered", [])
    ]
    if gaps:
        raise PolicyError("The tests do not cover every line of the policies:\n" + "\n".join(gaps))
    properties = [
        re.escape(found[1])
        for path in tree.folder.rglob("properties_test.rego")
        if (found := re.search(r"^package +(\S+)", path.read_text(), re.MULTILINE))
    ]
    if properties:
        tree.opa_output(failure, *test, "--run", rf"^data\.({'|'.join(properties)})\.", "policies")
    tests = sum(file.read_text().count("\ntest_") for file in tree.folder.rglob("*_test.rego"))
    return f"{tests} tests of the policies passed; coverage {coverage['coverage']:g}%"


def check_canary(tree: PolicyTree, bundle: Path | None = None) -> None:
    """Require that the canary decision passes: with the policies of the tree, or with a bundle."""
    loaded = ("--bundle", str(bundle)) if bundle else (*_IGNORE, "--data", "policies")
    output = tree.opa_output(
        "The policies cannot be loaded",
        *("eval", "--format", "json", "--strict-builtin-errors", *loaded),
        "data.mcp.decision.canary",
    )
    result = json.loads(output).get("result")
    answer = result[0]["expressions"][0]["value"] if result else {}
    if not (answer.get("allow_ok") and answer.get("deny_ok")):
        raise PolicyError(
            f"The canary decision fails: {json.dumps(answer)}. With these policies a subject with every "
            "role can list no tools or call none of them, or a call of an unknown tool is not denied. "
            "Check policies/config/roles and policies/config/methods, and rules that require a field "
            "which _canary_request in policies/mcp/decision/decision.rego does not have."
        )
