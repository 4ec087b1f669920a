"""The distribution says what it needs and carries what it serves."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED_OTHERWISE = {
    "alsaaudio": "pyalsaaudio", "attr": "attrs", "audioop": "audioop-lts", "cyclonedx": "cyclonedx-python-lib",
    "dns": "dnspython", "jwt": "pyjwt", "openssl": "pyopenssl", "packageurl": "packageurl-python",
    "paho": "paho-mqtt", "pil": "pillow", "sdl2": "pysdl2", "systemd": "systemd-python",
}
OURS = {"appliance", "hw", "tests", "edgecall_image", "edgecall_build"}
OF_DEBIAN = {"gi", "libcamera"}
"""In programs that run under the system's own Python: scripts/test installs python3-gi, and the guest's Debian 13 has
python3-libcamera, which no index has."""


def needed(*, extras: bool) -> set[str]:
    lines = list(PROJECT["dependencies"])
    if extras:
        lines += [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    return {re.split(r"[<>=!~;\[ ]", line)[0].lower() for line in lines}


def imported(source: str) -> Iterator[str]:
    """Top-level names of all third-party imports, wherever they stand in the file."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in OURS:
                yield NAMED_OTHERWISE.get(top.lower(), top.lower()).replace("_", "-")


@pytest.mark.parametrize("folder", ["appliance", "hw", "tests"])
def test_what_is_imported_is_declared(folder: str) -> None:
    """Not only installed because something else happens to need it."""
    declared = needed(extras=True)
    missing = {
        f"{name} ({path.relative_to(ROOT)})"
        for path in (ROOT / folder).rglob("*.py") for name in imported(path.read_text())
        if name not in declared | OF_DEBIAN
    }
    assert missing == set()


def test_what_an_image_runs_as_root_needs_the_standard_library_alone() -> None:
    package = ROOT / "image" / "edgecall_image"
    assert [(path.name, name) for path in package.rglob("*.py") for name in imported(path.read_text())] == []


def test_every_kind_of_file_that_the_packages_hold_is_package_data() -> None:
    kinds = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"])
    held = {
        path for package in ("appliance", "hw") for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert {str(path.relative_to(ROOT)) for path in held if not any(path.match(kind) for kind in kinds)} == set()


def test_the_version_is_said_once() -> None:
    from appliance import __version__

    assert PROJECT["version"] == __version__
