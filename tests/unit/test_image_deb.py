"""The daemon's Debian package: what it brings along is locked, its files are laid out right, its scripts behave."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edgecall_build import copyright as copyright_file
from edgecall_build import installed, wheels

ROOT = Path(__file__).parents[2]
DEB = ROOT / "image" / "deb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {architecture: wheels.read(DEB / f"wheels-{architecture}.lock") for architecture in wheels.ARCHITECTURES}
SOURCES = wheels.read(DEB / "sources.lock")
SITE = "usr/lib/edgecall/lib/python3.13/site-packages"
EPOCH = "1790000000"


# --- what it brings along

@pytest.mark.parametrize("architecture", wheels.ARCHITECTURES)
def test_the_locks_hold_what_the_project_asks_for(architecture: str) -> None:
    asked = [line for lines in wheels.requirements(PROJECT) for line in lines]
    versions = {each.name: each.version for each in LOCKS[architecture] + SOURCES}
    wrong = [line for line in asked
             if not Requirement(line).specifier.contains(versions.get(wheels.name_of(line), "0"))]
    assert wrong == [], "image/deb/lock has not been run since these changed"


def test_both_architectures_get_the_same_versions() -> None:
    amd64, arm64 = ({(each.name, each.version) for each in LOCKS[name]} for name in ("amd64", "arm64"))
    assert amd64 == arm64


def test_what_has_no_wheels_is_compiled_and_nothing_else() -> None:
    assert sorted(each.name for each in SOURCES) == sorted(wheels.COMPILED)
    for locked in LOCKS.values():
        assert not {each.name for each in locked} & {*wheels.COMPILED, *wheels.OF_DEBIAN, *wheels.UNUSED}


def test_what_comes_from_debian_is_depended_on() -> None:
    depends = re.search(r"^Depends: (.*(?:\n .*)*)", (DEB / "control.in").read_text(), flags=re.MULTILINE)
    assert depends is not None
    assert set(wheels.OF_DEBIAN.values()) <= {entry.split()[0] for entry in depends[1].replace("\n", "").split(",")}


def test_every_extra_of_a_device_is_thought_of() -> None:
    """A new package of an extra comes with a wheel, is compiled, is Debian's, or is named here."""
    found = {wheels.name_of(line) for lines in wheels.requirements(PROJECT) for line in lines} | set(wheels.OF_DEBIAN)
    asked = {wheels.name_of(line) for extra in ("board", "pi", "sound", "systemd")
             for line in PROJECT["optional-dependencies"][extra]}
    assert asked - found == {"picamera2", "edgecall"}


def test_a_lock_reads_as_it_was_written(tmp_path: Path) -> None:
    locked = [wheels.Locked("b", "2.0.1.post3", "0" * 64), wheels.Locked("a-c", "1", "f" * 64)]
    wheels.write(tmp_path / "lock", "Heading.", locked)
    assert wheels.read(tmp_path / "lock") == sorted(locked)
    assert (tmp_path / "lock").read_text().startswith("# Heading.\n")


@pytest.mark.parametrize("line", [
    "a==1", "a>=1 --hash=sha256:" + "0" * 64, "a==1 --hash=sha256:00", "--index-url https://example.org/", "",
    "# a comment", "a @ https://example.org/a.whl --hash=sha256:" + "0" * 64,
])
def test_a_lock_that_would_let_pip_choose_is_refused(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "wheels-amd64.lock").write_text(f"{line}\n")
    with pytest.raises(wheels.NotLockedError, match="image/deb/lock"):
        wheels.read(tmp_path / "wheels-amd64.lock")
    assert wheels.main(["fetch", "amd64", str(tmp_path), str(tmp_path / "w"), str(tmp_path / "s")]) == 1
    assert "wheels-amd64.lock" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip finds packages, and nowhere else: one wheel for 64-bit ARM."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "thing-1.0-cp313-cp313-manylinux_2_28_aarch64.whl", "w") as wheel:
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp313-cp313-manylinux_2_28_aarch64\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_wheels_are_fetched_for_the_architecture_that_is_asked_for(index: Path, tmp_path: Path) -> None:
    [wheel] = index.iterdir()
    lock, fetched = tmp_path / "lock", tmp_path / "fetched"
    wheels.write(lock, "", [wheels.Locked("thing", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest())])
    wheels.fetch(lock, wheels.fitting("arm64"), fetched)
    assert [path.name for path in fetched.iterdir()] == [wheel.name]
    with pytest.raises(wheels.NotLockedError, match="No matching distribution"):
        wheels.fetch(lock, wheels.fitting("amd64"), tmp_path / "other")


def test_a_file_with_another_hash_is_refused(index: Path, tmp_path: Path) -> None:
    lock, fetched = tmp_path / "lock", tmp_path / "fetched"
    wheels.write(lock, "", [wheels.Locked("thing", "1.0", "0" * 64)])
    with pytest.raises(wheels.NotLockedError, match="Expected sha256"):
        wheels.fetch(lock, wheels.fitting("arm64"), fetched)
    assert not fetched.exists() or not list(fetched.iterdir())


def test_a_report_of_pip_becomes_requirements() -> None:
    report = json.loads("""{"install": [
        {"metadata": {"name": "PySDL2", "version": "0.9.17"},
         "download_info": {"archive_info": {"hashes": {"sha256": "ab"}}}},
        {"metadata": {"name": "setuptools", "version": "84"},
         "download_info": {"archive_info": {"hashes": {"sha256": "cd"}}}}]}""")
    assert list(wheels.locked_of(report)) == [wheels.Locked("pysdl2", "0.9.17", "ab")]


# --- what it installs

@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("deb") / "tree")


def lay_out(tree: Path) -> Path:
    """All but the Python packages, of which there is a small one."""
    metadata = tree / SITE / "Other_Thing-2.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.4\nName: Other-Thing\nVersion: 2.0\nLicense-Expression: BSD-3-Clause\n")
    subprocess.run([DEB / "files", ROOT, tree, "1.2.3", "arm64"], check=True,
                   env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH})
    return tree


def test_debian_takes_it_as_a_package(tree: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made], check=True, capture_output=True)
    told = subprocess.run(["dpkg-deb", "--field", made], check=True, capture_output=True, text=True).stdout
    assert "Package: edgecall\nVersion: 1.2.3\nArchitecture: arm64\n" in told
    assert "@" not in told.replace("<edgecall@localhost>", "")


def test_two_layouts_of_one_checkout_are_equal(tree: Path, tmp_path: Path) -> None:
    again = lay_out(tmp_path / "tree")
    files = {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}


def test_every_unit_is_installed_and_starts_the_command(tree: Path) -> None:
    units = {path.name: path.read_text() for path in (tree / "usr/lib/systemd/system").iterdir()}
    ours = [path for path in (ROOT / "config/systemd").rglob("edgecall*") if path.suffix in {".service", ".timer"}]
    assert units.keys() == {path.name for path in ours}
    assert "ExecStart=/usr/bin/edgecall run\n" in units["edgecall.service"]
    assert "ExecStart=/usr/bin/edgecall run --safe\n" in units["edgecall-safe.service"]
    for name, text in units.items():
        for program in re.findall(r"^Exec\w+=(\S+)", text, flags=re.MULTILINE):
            assert (tree / program.lstrip("/")).exists() or program.startswith("/bin/"), name


def test_nothing_that_happens_after_failures_happens_without_the_administrator(tree: Path) -> None:
    """A computer that has other work is not rebooted: the drop-in is an example."""
    assert [str(path.relative_to(tree)) for path in tree.rglob("on-failure.conf")] == [
        "usr/share/doc/edgecall/examples/on-failure.conf"]


def test_nothing_points_to_where_the_manual_installation_is(tree: Path) -> None:
    assert [path for path in tree.rglob("*") if path.is_file() and b"/opt/edgecall" in path.read_bytes()] == []


def test_settings_are_the_administrators(tree: Path) -> None:
    assert (tree / "DEBIAN/conffiles").read_text() == "/etc/edgecall/edgecall.toml\n"
    assert (tree / "etc/edgecall/edgecall.toml").read_bytes() == (ROOT / "config/edgecall.toml").read_bytes()
    assert [path for path in (tree / "etc").rglob("*") if path.is_file()] == [tree / "etc/edgecall/edgecall.toml"]


def test_sums_and_size_are_those_of_the_files(tree: Path) -> None:
    files = [path for path in tree.rglob("*") if path.is_file() and "DEBIAN" not in path.parts]
    sums = dict(reversed(line.split("  ")) for line in (tree / "DEBIAN/md5sums").read_text().splitlines())
    assert sums == {str(path.relative_to(tree)): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                    for path in files}
    others = sum(1 for path in [tree, *tree.rglob("*")] if not path.is_file() and "DEBIAN" not in path.parts)
    size = sum(-(-path.stat().st_size // 1024) for path in files) + others
    assert f"Installed-Size: {size}\n" in (tree / "DEBIAN/control").read_text()


def test_papers_name_version_date_and_the_licences_of_others(tree: Path) -> None:
    papers = tree / "usr/share/doc/edgecall"
    log = gzip.decompress((papers / "changelog.Debian.gz").read_bytes()).decode()
    assert log.startswith("edgecall (1.2.3) ")
    assert log.endswith("  Mon, 21 Sep 2026 14:13:20 +0000\n")
    assert gzip.decompress((papers / "changelog.gz").read_bytes()) == (ROOT / "CHANGELOG.md").read_bytes()
    assert "\n Other-Thing 2.0: BSD-3-Clause\n" in (papers / "copyright").read_text()


def test_a_package_that_names_no_licence_is_told_so(tmp_path: Path) -> None:
    named = {"b": "License: a text\n        of several lines\n", "A": "License: Zope\n", "edgecall": ""}
    for name, licence in named.items():
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{licence}")
    assert copyright_file.lines(tmp_path) == ["A 1: Zope", "b 1: see its texts"]


def test_a_package_without_python_packages_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert copyright_file.main([str(DEB / "copyright.in"), str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


# --- its scripts, on a system in a folder

@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Programs that a script may call only write down that it did."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("systemd-sysusers", "deb-systemd-helper", "deb-systemd-invoke", "systemctl", "udevadm", "userdel"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/called\n')
        (programs / name).chmod(0o755)
    (tmp_path / "called").touch()
    return tmp_path


def script(system: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{system}/programs:/usr/bin:/bin", "DPKG_ROOT": str(system / "root")}
    return subprocess.run(["/bin/sh", DEB / name, *words], env=environment, capture_output=True, text=True, timeout=10,
                          check=False)


def called(system: Path) -> list[str]:
    return (system / "called").read_text().splitlines()


def test_installing_makes_the_user_and_has_the_service_start_with_the_system(system: Path) -> None:
    assert script(system, "postinst", "configure", "").returncode == 0
    assert called(system) == [
        f"systemd-sysusers --root={system}/root edgecall.conf",
        "deb-systemd-helper --quiet was-enabled edgecall.service", "deb-systemd-helper enable edgecall.service",
    ]


def test_what_the_administrator_disabled_stays_so(system: Path) -> None:
    helper = system / "programs/deb-systemd-helper"
    helper.write_text(f'{helper.read_text()}[ "$2" != was-enabled ]\n')
    assert script(system, "postinst", "configure", "1.0").returncode == 0
    assert not [line for line in called(system) if " enable " in line]


@pytest.mark.parametrize("words", [("upgrade", "2.0"), ("failed-upgrade", "1.0")])
def test_an_upgrade_waits_for_the_end_of_a_call(system: Path, words: tuple[str, ...]) -> None:
    lock = system / "root/run/edgecall/call.lock"
    assert script(system, "prerm", *words).returncode == 0  # no daemon runs, or none that locks
    lock.parent.mkdir(parents=True)
    with lock.open("w") as daemon:
        assert script(system, "prerm", *words).returncode == 0
        fcntl.flock(daemon, fcntl.LOCK_SH)
        refused = script(system, "prerm", *words)
    assert refused.returncode == 1
    assert "in a call" in refused.stderr
    assert "edgecall call.hangup" in refused.stderr


def test_removing_asks_nobody(system: Path) -> None:
    lock = system / "root/run/edgecall/call.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as daemon:
        fcntl.flock(daemon, fcntl.LOCK_SH)
        assert script(system, "prerm", "remove").returncode == 0


def test_only_a_purge_takes_settings_data_and_user(system: Path) -> None:
    kept = [system / "root" / place for place in ("etc/edgecall/boards/ours.toml", "var/lib/edgecall/edgecall.db",
                                                  "var/lib/edgecall-failed/marker")]
    other = system / "root/var/lib/other"
    for file in [*kept, other]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert script(system, "postrm", "remove").returncode == 0
    assert script(system, "postrm", "upgrade", "2.0").returncode == 0
    assert all(file.exists() for file in kept)
    assert called(system) == []
    assert script(system, "postrm", "purge").returncode == 0
    assert not any(file.parent.exists() for file in kept)
    assert other.exists()
    assert f"userdel --root {system}/root edgecall" in called(system)
    assert script(system, "postrm", "purge").returncode == 0  # again


# --- the programs around it

@pytest.mark.parametrize(("words", "code", "told"), [
    (["check"], 2, "Proves a package of the daemon"),
    (["check", "--recommended"], 2, "Proves a package of the daemon"),
    (["check", "--anything", "x.deb"], 1, "there is no option '--anything'"),
    (["check", "--mirror", "--recommended", "x.deb"], 1, "what --mirror is, is missing after it"),
    (["check", "x.deb", "y.deb"], 1, "one package at a time: x.deb, or y.deb?"),
    (["check", "nowhere.deb"], 1, "'nowhere.deb' is no file"),
    (["lock", "--help"], 0, "Resolves pyproject.toml anew"),
    (["lock", "--all"], 1, "there is no option '--all'"),
])
def test_what_a_program_does_not_understand_it_says(words: list[str], code: int, told: str, tmp_path: Path) -> None:
    done = subprocess.run([DEB / words[0], *words[1:]], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code
    assert told in done.stderr


# --- the proof of an installed package

def test_compiled_modules_are_found_by_name(tmp_path: Path) -> None:
    ours = f"_lgpio.cpython-313-{os.uname().machine}-linux-gnu.so"
    for file in (ours, "av/_core.abi3.so", "av/x.so", "av.libs/libz-1.so", "a/b-c.so"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert list(installed.compiled(tmp_path)) == ["_lgpio", "av._core", "av.x"]


def test_a_failed_import_is_known_by_the_modules_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy").mkdir()
    (tmp_path / "needy/__init__.py").write_text("raise ImportError('no library')\n")
    (tmp_path / "over.py").write_text("import needy\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as failed:
        __import__("over")
    assert {"over", "needy"} <= set(installed.within(failed.value.__traceback__))
