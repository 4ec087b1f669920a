"""The files that an image has beside Debian's: what they start exists, and what they say of one thing agrees."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest

from edgecall_image import firewall, layout
from edgecall_image.firstfile import SYSTEM
from edgecall_image.network import NETWORK
from tests.support.overlay import OVERLAY, UNITS, links

ROOT = Path(__file__).parents[2]
OF_DEBIAN = {"iwd.service", "nftables.service", "systemd-networkd.service", "systemd-resolved.service",
             "systemd-timesyncd.service"}
RUN = "/usr/bin/python3 -I /usr/lib/edgecall-image/run "


def _texts() -> dict[str, str]:
    return {str(path.relative_to(OVERLAY)): path.read_text() for path in sorted(OVERLAY.rglob("*")) if path.is_file()}


def test_what_is_started_by_name_is_a_module_with_a_main() -> None:
    started = {name for text in _texts().values() for name in re.findall(re.escape(RUN) + r"([a-z_]+)", text)}
    assert {"grow", "provision", "firewall", "reset"} <= started
    for name in started:
        assert callable(importlib.import_module(f"edgecall_image.{name}").main), name


def test_units_that_are_wanted_are_there() -> None:
    wanted = {link.partition("/")[2]: target for link, target in links().items()}
    assert wanted
    for name, target in wanted.items():
        assert target == f"../{name}"
        assert (UNITS / name).is_file() or name in OF_DEBIAN, name


def test_no_file_of_the_overlay_is_a_link() -> None:
    """What carries a repository by its files alone, as an archive, makes a file of a link."""
    assert [path for path in OVERLAY.parent.rglob("*") if path.is_symlink()] == []


def test_programs_are_executable_and_begin_as_programs_do() -> None:
    for text in _texts().values():
        for name in re.findall(r"ExecStart=/usr/lib/edgecall-image/([a-z]+)$", text, re.MULTILINE):
            path = OVERLAY / "usr/lib/edgecall-image" / name
            assert path.stat().st_mode & 0o111, name
            assert path.read_text().startswith("#!/bin/sh\n"), name
    assert (OVERLAY / "usr/lib/edgecall-image/init").stat().st_mode & 0o111


def test_paths_are_those_of_the_layout() -> None:
    init = (OVERLAY / "usr/lib/edgecall-image/init").read_text()
    assert f'= {layout.DATA_PARTITION} ]' in init
    assert str(layout.MARKS / "factory-reset") in init
    service = (UNITS / "edgecall.service.d/50-image.conf").read_text()
    assert f"EDGECALL_CONFIG={layout.SETTINGS}" in service
    assert f"PathChanged={layout.SETTINGS}" in (UNITS / "edgecall-firewall.path").read_text()
    setup = (UNITS / "edgecall-setup.service").read_text()
    assert f"{layout.LABEL_ID:08x}\\x2d{layout.SELECTOR_PARTITION:02x}.device" in setup


def test_what_happens_after_failures_is_what_the_repository_says() -> None:
    said = (ROOT / "config/systemd/appliance/on-failure.conf").read_text()
    ours = (UNITS / "edgecall.service.d/50-image.conf").read_text()
    for key in ("OnFailure", "Wants"):
        (units,) = re.findall(rf"^{key}=(.*)$", said, re.MULTILINE)
        assert set(units.split()) <= {unit for line in re.findall(rf"^{key}=(.*)$", ours, re.MULTILINE)
                                      for unit in line.split()}


def test_what_lasts_of_var_is_bound_from_data() -> None:
    bound = {}
    for line in (OVERLAY / "etc/fstab").read_text().splitlines():
        if line and not line.startswith("#"):
            what, where, kind, options, *_ = line.split()
            bound[where] = what
            assert (kind == "tmpfs") != (options == "bind"), line
    lasting = {where for where, what in bound.items() if what.startswith("/data/state/")}
    assert {"/var/lib/edgecall", "/var/lib/edgecall-failed", "/var/lib/iwd", "/var/lib/systemd",
            "/var/log/journal"} <= lasting
    assert bound["/var"] == "tmpfs"


def test_the_sets_that_are_filled_are_in_the_rules() -> None:
    rules = (OVERLAY / "etc/nftables.conf").read_text()
    for line in firewall.rules(firewall.Ports(frozenset({1}), frozenset({1}))).splitlines():
        _, _, family, table, name, *_ = line.split()
        assert f"table {family} {table} {{" in rules
        assert re.search(rf"set {name} {{ type inet_service;", rules)
        assert f"dport @{name} accept" in rules
    assert "hook input priority filter; policy drop;" in rules


def test_masked_units_are_none_of_ours() -> None:
    masked = links("etc/systemd/system")
    assert "systemd-machine-id-commit.service" in masked
    for name, target in masked.items():
        assert target == "/dev/null"
        assert not (UNITS / name).exists()


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_systemd_understands_the_unit(unit: str, tmp_path: Path) -> None:
    text = (UNITS / unit).read_text()
    text = re.sub(r"^Exec(Start|StartPre|Stop)=\S+", r"Exec\1=/bin/true", text, flags=re.MULTILINE)
    (tmp_path / unit).write_text(text)
    judged = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit)],
                            capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
    assert judged.returncode == 0, judged.stderr
    assert f"{unit}:" not in judged.stderr


@pytest.mark.parametrize("key", [*(f"system.{key}" for key in SYSTEM), *(f"network.{key}" for key in NETWORK)])
def test_every_key_of_the_image_is_explained_and_shown(key: str) -> None:
    assert f"`{key}`" in (ROOT / "docs" / "image.md").read_text()
    example = (ROOT / "image" / "edgecall.toml.example").read_text()
    section, name = key.split(".")
    assert re.search(rf"^(# )?({name} = |\[+{section}\.{name}\])|{section}\.{name}\]", example, re.MULTILINE)
