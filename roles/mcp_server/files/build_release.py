#!/usr/bin/env python3
"""Builds one archive from which a host installs a release without a package index.

The archive contains the wheels of the lock file for one Python version and architecture, the project's
own wheel, and a requirements.txt with the hash of each. The name of the release is its version and a
hash of the package, its requirements, the lock file and the target. A change of the README or of a
linter's settings makes no new release, because a new release restarts every node. The same sources
always make the same name.

Prints a JSON object: name, archive, sha256, changed (whether an archive was built).
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
except ModuleNotFoundError as error:
    sys.exit(
        f"{error}; run Ansible from the project's virtual environment (scripts/bootstrap makes it)"
    )

_ARCHIVES_KEPT = 5
# Sources of the project's own wheel, in addition to the package.
_SOURCES = ("LICENSE", "README.md", "pyproject.toml")
# Keys of pyproject.toml that do not affect the behaviour of the server.
_FOR_READERS = {
    "authors",
    "classifiers",
    "description",
    "keywords",
    "license",
    "license-files",
    "maintainers",
    "readme",
    "urls",
}
_PACKAGE = "mcp_server"
# The oldest supported host is Debian 12 with glibc 2.36.
_NEWEST_GLIBC_MINOR = 36
_FIRST_MANYLINUX_MINOR = 17
_HASH_DIGITS = 12


def main() -> None:
    options = _options()
    options.cache.mkdir(parents=True, exist_ok=True)
    # One build at a time, because several runs of Ansible may share the cache.
    with (options.cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(json.dumps(_release(options)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="root of the project")
    parser.add_argument("--lock", type=Path, required=True, help="requirements with hashes")
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder that keeps wheels and archives"
    )
    parser.add_argument("--python", required=True, help="Python of the host: 3.13")
    parser.add_argument(
        "--machine", required=True, help="architecture of the host: x86_64 or aarch64"
    )
    return parser.parse_args()


def _release(options: argparse.Namespace) -> dict[str, object]:
    behaviour = _behaviour(options.source)
    own = _own_wheel(options.source, options.cache / "own" / behaviour)
    name, version = own.name.split("-")[:2]
    target = f"cp{options.python.replace('.', '')}-{options.machine}"
    locked = (
        "\n".join(
            _locked(options.lock.read_text(encoding="utf-8"), options.python, options.machine)
        )
        + "\n"
    )
    requirements = f"{name.replace('_', '-')}=={version} --hash=sha256:{_sha256(own)}\n{locked}"
    digest = hashlib.sha256(f"{target}\n{behaviour}\n{locked}".encode()).hexdigest()[:_HASH_DIGITS]
    release = f"{version}-{digest}"
    archive = options.cache / "archives" / f"{release}-{target}.tar"
    missing = not archive.exists()
    if missing:
        wheels = _wheelhouse(
            locked, options.cache / "wheelhouses", target, options.python, options.machine
        )
        _pack(archive, requirements, [own, *sorted(wheels.glob("*.whl"))])
    archive.touch()
    _prune(archive.parent)
    return {
        "name": release,
        "archive": str(archive),
        "sha256": _sha256(archive),
        "changed": missing,
    }


def _locked(text: str, python: str, machine: str) -> Iterator[str]:
    """Yield the requirements for the target, one a line with its hashes and without its marker.

    The markers are decided here, because pip takes them for the Python it runs in, not for the one it
    downloads for.
    """
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        if not line or line.startswith(("#", "--")):
            continue
        stated, *hashes = re.split(r"\s--hash=", line)
        requirement = Requirement(stated.strip())
        if not hashes:
            sys.exit(f"the lock file has no hash for {requirement.name}")
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pins = " ".join(f"--hash={each.split()[0]}" for each in hashes)
            yield f"{canonicalize_name(requirement.name)}{requirement.specifier} {pins}"


def _package(source: Path) -> list[Path]:
    """Return the files of the package, sorted."""
    return sorted(
        path
        for path in (source / _PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    )


def _behaviour(source: Path) -> str:
    """Return a hash of what decides how the project's wheel behaves."""
    content = hashlib.sha256()
    for path in _package(source):
        content.update(f"{path.relative_to(source)}\0{_sha256(path)}\n".encode())
    described = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))
    project = {k: v for k, v in described["project"].items() if k not in _FOR_READERS}
    decisive = {"project": project, "build": described["tool"]["hatch"]["build"]}
    content.update(json.dumps(decisive, sort_keys=True).encode())
    return content.hexdigest()[:_HASH_DIGITS]


def _own_wheel(source: Path, place: Path) -> Path:
    """Return the project's wheel, built when there is none at its place."""
    built = sorted(place.glob("*.whl"))
    if built:
        place.touch()
        return built[0]
    with tempfile.TemporaryDirectory() as scratch:
        # A copy of the sources only, so that no other file gets into the wheel.
        copy, output = Path(scratch, "source"), Path(scratch, "dist")
        for path in [*(source / name for name in _SOURCES), *_package(source)]:
            target = copy / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o644)
        _run(
            [
                sys.executable,
                "-m",
                "hatchling",
                "build",
                "--target",
                "wheel",
                "--directory",
                str(output),
            ],
            cwd=copy,
            # Reproducible: the same bytes at any time and place.
            env={**os.environ, "SOURCE_DATE_EPOCH": "1577836800", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        place.mkdir(parents=True, exist_ok=True)
        for wheel in output.glob("*.whl"):
            _move(wheel, place / wheel.name)
    _prune(place.parent)
    return next(place.glob("*.whl"))


def _wheelhouse(requirements: str, cache: Path, target: str, python: str, machine: str) -> Path:
    """Return the folder with the wheels of the lock file, downloaded when it is not complete."""
    place = cache / f"{hashlib.sha256(requirements.encode()).hexdigest()[:_HASH_DIGITS]}-{target}"
    if (place / ".complete").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    listing = place / "requirements.txt"
    listing.write_text(requirements, encoding="utf-8")
    minors = range(_NEWEST_GLIBC_MINOR, _FIRST_MANYLINUX_MINOR - 1, -1)
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in minors] + [
        f"manylinux2014_{machine}"
    ]
    _run(
        [
            *(str(_tools(cache.parent) / "bin/python"), "-m", "pip", "download"),
            *(
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
            ),
            *(
                "--implementation",
                "cp",
                "--python-version",
                python,
                "--abi",
                f"cp{python.replace('.', '')}",
            ),
            *(f"--platform={platform}" for platform in platforms),
            *("--dest", str(place), "--requirement", str(listing)),
        ]
    )
    (place / ".complete").touch()
    _prune(cache)
    return place


def _tools(cache: Path) -> Path:
    """Return a virtual environment that has pip; the project's own may not."""
    place = cache / f"pip-{sys.version_info.major}.{sys.version_info.minor}"
    if not (place / ".complete").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(place)])
        (place / ".complete").touch()
    return place


def _pack(archive: Path, requirements: str, wheels: list[Path]) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        listing = Path(scratch, "requirements.txt")
        listing.write_text(requirements, encoding="utf-8")
        unfinished = Path(scratch, "release.tar")
        with tarfile.open(unfinished, "w") as tar:
            for path in [listing, *wheels]:
                tar.add(path, arcname=path.name, filter=_anonymous)
        unfinished.replace(archive)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    member.mode = 0o644
    return member


def _prune(folder: Path) -> None:
    """Keep the entries that were used last."""
    entries = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in entries[_ARCHIVES_KEPT:]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _move(source: Path, target: Path) -> None:
    unfinished = target.with_suffix(".new")
    shutil.copyfile(source, unfinished)
    unfinished.replace(target)


def _run(command: list[str], **options: object) -> None:
    result = subprocess.run(command, text=True, capture_output=True, check=False, **options)  # type: ignore[call-overload] # passed on
    if result.returncode != 0:
        sys.exit(f"{' '.join(command[:6])} ... failed:\n{result.stderr or result.stdout}")


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


if __name__ == "__main__":
    main()
