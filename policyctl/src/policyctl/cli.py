"""The command `policyctl`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from policyctl.bench import bench
from policyctl.bundle import build_bundle
from policyctl.checks import check_all, check_data, check_layout, write_capabilities
from policyctl.data import parse_overrides
from policyctl.opa import PolicyError, find_opa
from policyctl.tree import PolicyTree, tree_with_overrides

EXIT_CODES = """\
exit codes:
  0      success
  1      the policies, the overrides or the key cannot be used, or OPA was not found
  2      wrong options
  other  `opa` only: the exit code of OPA
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except PolicyError as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    # Absolute but not resolved: messages name a symbolic link as the user does.
    policies = _without_dots(options.policies.absolute())
    if not policies.is_dir():
        raise PolicyError(
            f"There is no folder {policies}; name the folder of policies with --policies FOLDER."
        )
    opa = find_opa(options.opa)
    match options.command:
        case "opa":
            command = [str(opa), *options.arguments]
            return subprocess.run(command, cwd=policies.parent, check=False).returncode
        case "capabilities":
            write_capabilities(PolicyTree(policies, opa))
        case "build":
            _build(options, policies, opa)
        case "bench":
            with tree_with_overrides(policies, {}, opa) as tree:
                print(bench(tree))
        case command:
            with tree_with_overrides(policies, parse_overrides(options.overrides), opa) as tree:
                if command == "check":
                    check_all(tree, print)
                else:
                    check_layout(tree)
                    check_data(tree)
                    print("The policy data is valid.")
    return 0


def _without_dots(folder: Path) -> Path:
    """Return the folder without `..`, unless that names another one: after a symbolic link it may."""
    short = Path(os.path.normpath(folder))
    return short if short.exists() and folder.exists() and short.samefile(folder) else folder


def _build(options: argparse.Namespace, policies: Path, opa: Path) -> None:
    result = build_bundle(
        policies,
        options.out,
        opa=opa,
        key=_read_key(options.signing_key),
        key_id=options.key_id,
        overrides=parse_overrides(options.overrides),
        dry_run=options.dry_run,
        tests=not options.skip_tests,
        # Standard output holds the result only.
        report=lambda text: print(text, file=sys.stderr),
    )
    print(json.dumps(asdict(result)))


def _read_key(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text()
    except OSError as error:
        raise PolicyError(f"The signing key {file} cannot be read: {error.strerror}.") from error


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="policyctl",
        description="Checks a folder of OPA policies and packs it into a signed bundle.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--opa",
        metavar="FILE",
        help="the OPA binary; default: the one that scripts/build_opa built, else opa on the PATH",
    )
    top.add_argument(
        "--policies",
        type=Path,
        metavar="FOLDER",
        default=Path("policies"),
        help="the folder of policies; default: policies in the current folder",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    overrides = argparse.ArgumentParser(add_help=False)
    overrides.add_argument(
        "--overrides",
        metavar="DATA",
        help="policy data (JSON or YAML) to merge into config of the policies",
    )
    commands.add_parser(
        "check",
        parents=[overrides],
        help="check layout, types, deny rules, format, data, tests with full coverage, canary decision",
    )
    commands.add_parser("lint", parents=[overrides], help="check the layout and the data only")
    build = commands.add_parser(
        "build", parents=[overrides], help="check the policies and build a signed bundle"
    )
    build.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where bundle.tar.gz and bundle.json are written",
    )
    build.add_argument(
        "--signing-key",
        required=True,
        metavar="FILE",
        help="PEM private key on the curve P-256; - reads it from standard input",
    )
    build.add_argument(
        "--key-id",
        required=True,
        metavar="NAME",
        help="the name of the key in the configuration of OPA",
    )
    build.add_argument(
        "--dry-run", action="store_true", help="check, and say whether a bundle would be written"
    )
    build.add_argument(
        "--skip-tests",
        action="store_true",
        help="check only what a bundle needs to work: no tests, no format",
    )
    commands.add_parser("bench", help="measure how long a decision takes on this machine")
    commands.add_parser(
        "capabilities", help="write capabilities.json again, after an upgrade of OPA"
    )
    raw = commands.add_parser("opa", help="run OPA itself in the folder above the policies")
    raw.add_argument("arguments", nargs=argparse.REMAINDER, help="the arguments for OPA")
    return top
