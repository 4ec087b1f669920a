"""The bill of materials of an image, its licence texts, and its list of sources."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PathDistribution
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packageurl import PackageURL

from edgecall_build import bom, lock, wheel_libraries, wheels
from tests.support.bill import faults_of

DEB = Path(__file__).parents[2] / "image/deb"
SITE = "usr/lib/edgecall/site-packages"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a package of Debian and one of Python."""
    root = tmp_path / "root"
    files = {
        "etc/debian_version": "13.2\n",
        "usr/share/common-licenses/GPL-2": "GNU\n",
        "usr/share/doc/zlib1g/copyright": "Format: https://debian.example/\nLicense: Zlib\n\nLicense: Zlib\n text\n",
        f"{SITE}/av-19.0.2.dist-info/METADATA":
            "Metadata-Version: 2.4\nName: av\nVersion: 19.0.2\nLicense-Expression: BSD-3-Clause\n\n",
        f"{SITE}/av-19.0.2.dist-info/RECORD": "av-19.0.2.dist-info/licenses/LICENSE.txt,,\nav/a.py,,\n",
        f"{SITE}/av-19.0.2.dist-info/licenses/LICENSE.txt": "as you like\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def bill_of(root: Path, tmp_path: Path, site: str) -> int:
    return bom.main(["--root", str(root), "--packages", str(tmp_path / "packages"), "--site", site,
                     "--name", "edgecall-uml-amd64", "--version", "1.2.3", "--epoch", "1764460800",
                     "--checkout", "5a1e-dirty", "--out", str(tmp_path / "image")])


def test_the_bill_names_all_packages_by_purl_and_keeps_their_texts(root: Path, tmp_path: Path) -> None:
    (tmp_path / "packages").write_text("zlib1g amd64 1:1.3.dfsg+really1.3.1-1+b1 zlib 1:1.3.dfsg+really1.3.1-1\n")
    assert bill_of(root, tmp_path, SITE) == 0
    text = (tmp_path / "image.cdx.json").read_text()
    assert faults_of(text) == []
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["metadata"]["component"]["version"] == "1.2.3"
    assert bill["metadata"]["timestamp"] == "2025-11-30T00:00:00Z"
    debian, python = bill["components"]
    assert debian["purl"] == "pkg:deb/debian/zlib1g@1:1.3.dfsg%2Breally1.3.1-1%2Bb1?arch=amd64&distro=debian-13"
    assert debian["licenses"] == [{"license": {"name": "Zlib"}}]
    assert python["purl"] == "pkg:pypi/av@19.0.2"
    assert python["licenses"] == [{"license": {"name": "BSD-3-Clause"}}]
    assert (tmp_path / "image.sources.txt").read_text() == "debian zlib 1:1.3.dfsg+really1.3.1-1\npypi av 19.0.2\n"
    assert (tmp_path / "image.licences/debian/zlib1g").read_text().startswith("Format:")
    assert (tmp_path / "image.licences/python/av-19.0.2/licenses-LICENSE.txt").read_text() == "as you like\n"
    assert bill_of(root, tmp_path, f"/{SITE}") == 0
    assert (tmp_path / "image.cdx.json").read_text() == text, "the same image has the same bill"


DEBIAN = st.builds(
    lock.Package, st.from_regex(r"[a-z0-9][a-z0-9+.-]+", fullmatch=True), st.sampled_from(["all", "amd64", "arm64"]),
    st.from_regex(r"([1-9]:)?[0-9][A-Za-z0-9.+~-]*", fullmatch=True), st.just("source"), st.just("1.0-1"))


@given(st.lists(st.tuples(DEBIAN, st.lists(st.text(min_size=1), max_size=2)), unique_by=lambda one: one[0], max_size=3))
def test_any_bill_is_one_by_the_schema_of_cyclonedx(packages: list[tuple[lock.Package, list[str]]]) -> None:
    """And a reader of package URLs finds in each what dpkg has said."""
    components = [bom.debian_component(package, "13", licences) for package, licences in packages]
    bill = bom.document("edgecall-uml-amd64", "1.4.0-rc.1", components, datetime(2026, 11, 30, tzinfo=UTC))
    assert faults_of(json.dumps(bill)) == []
    for component, (package, _) in zip(components, packages, strict=True):
        url = PackageURL.from_string(str(component["purl"]))
        assert url.to_string() == component["purl"]
        assert (url.type, url.namespace, url.name, url.version) == ("deb", "debian", package.name, package.version)
        assert url.qualifiers == {"arch": package.architecture, "distro": "debian-13"}


def test_what_is_no_bill_has_faults() -> None:
    bill = bom.document("edgecall", "1.4.0", [{"bom-ref": "a", "name": "a"}], datetime(2026, 11, 30, tzinfo=UTC))
    assert faults_of(json.dumps(bill)) == ["'type' is a required property"]


# -- What wheels carry -------------------------------------------------------------------------------------------------


def put_bill(root: Path, name: str, content: str) -> PathDistribution:
    """Into the wheel of av; the distribution then."""
    info = root / SITE / "av-19.0.2.dist-info"
    (info / "sboms").mkdir(exist_ok=True)
    (info / "sboms" / name).write_text(content)
    with (info / "RECORD").open("a") as record:
        record.write(f"{info.name}/sboms/{name},,\n")
    return PathDistribution(info)


def cyclonedx(*components: object) -> str:
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.4", "components": components})


def test_what_a_wheel_carries_is_in_the_bill_as_the_wheel_says(root: Path, tmp_path: Path) -> None:
    put_bill(root, "auditwheel.cdx.json", cyclonedx(
        {"name": "av", "version": "19.0.2", "purl": "pkg:pypi/av@19.0.2?file_name=av-19.0.2-cp312-abi3.whl"},
        {"name": "libxcb", "version": "1.13.1-1.el8", "purl": "pkg:rpm/almalinux/libxcb@1.13.1-1.el8", "bom-ref": "1"},
        {"name": "libxcb", "version": "1.13.1-1.el8", "purl": "pkg:rpm/almalinux/libxcb@1.13.1-1.el8", "bom-ref": "2"}))
    put_bill(root, "own.cdx.json", cyclonedx(
        {"name": "av._core", "purl": "pkg:pypi/av@19.0.2#c-ext/av._core"},
        {"name": "pybind11", "scope": "excluded"},
        {"name": "ffmpeg", "version": "9.1", "licenses": [{"license": {"id": "LGPL-2.1-or-later"}}], "components": [
            {"name": "x264", "licenses": [{"expression": "GPL-2.0-or-later"}, {"license": {"name": "commercial"}}]}]}))
    (tmp_path / "packages").write_text("zlib1g amd64 1 zlib 1\n")
    assert bill_of(root, tmp_path, SITE) == 0
    text = (tmp_path / "image.cdx.json").read_text()
    assert faults_of(text) == []
    python = json.loads(text)["components"][1]
    assert python["components"] == [
        {"type": "library", "bom-ref": "pkg:pypi/av@19.0.2/pkg:rpm/almalinux/libxcb@1.13.1-1.el8", "name": "libxcb",
         "version": "1.13.1-1.el8", "purl": "pkg:rpm/almalinux/libxcb@1.13.1-1.el8"},
        {"type": "library", "bom-ref": "pkg:pypi/av@19.0.2/ffmpeg@9.1", "name": "ffmpeg", "version": "9.1",
         "licenses": [{"license": {"name": "LGPL-2.1-or-later"}}]},
        {"type": "library", "bom-ref": "pkg:pypi/av@19.0.2/x264", "name": "x264",
         "licenses": [{"license": {"name": "GPL-2.0-or-later"}}, {"license": {"name": "commercial"}}]},
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"spdxVersion": "SPDX-2.3"}', "{"])
def test_what_is_no_bill_of_cyclonedx_is_told_and_left_out(
    content: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bom.carried(put_bill(root, "other.json", content)) == []
    assert capsys.readouterr().err == (
        "bom: av-19.0.2.dist-info/sboms/other.json is no bill of CycloneDX: what it names is left out\n")


KEYS = st.sampled_from(["name", "version", "purl", "scope", "licenses", "license", "id", "expression", "components"])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20)


@given(JSON)
def test_whatever_a_wheel_says_the_bill_stays_one(components: object) -> None:
    with TemporaryDirectory() as folder:
        info = Path(folder) / SITE / "av-19.0.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.4\nName: av\nVersion: 19.0.2\n\n")
        told = json.dumps({"bomFormat": "CycloneDX", "components": components})
        component = bom.python_component(put_bill(Path(folder), "any.cdx.json", told))
    bill = bom.document("edgecall", "1.4.0", [component], datetime(2026, 11, 30, tzinfo=UTC))
    assert faults_of(json.dumps(bill)) == []


# -- What wheels carry and do not say ----------------------------------------------------------------------------------


def carry(root: Path, *files: str, version: str = "19.0.2") -> PathDistribution:
    """Into the wheel of av, which then has this version."""
    info = root / SITE / "av-19.0.2.dist-info"
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.4\nName: av\nVersion: {version}\n\n")
    libraries = info.with_name("av.libs")
    libraries.mkdir()
    with (info / "RECORD").open("a") as record:
        for file in files:
            (libraries / file).touch()  # from Python 3.12 on a file that is not there is none of the distribution's
            record.write(f"{libraries.name}/{file},,\n")
    return PathDistribution(info)


FILES = ("libavcodec-d61378e8.so.63.1.102", "libx264-d6533a8d.so.165", "libxcb-shm-0be6dfbf.so.0.0.0")
X264 = "b35605ace3ddf7c1a5d67a2eb553f034aef41d55"


def test_libraries_that_a_wheel_does_not_tell_of_are_in_bill_sources_and_licences(root: Path, tmp_path: Path) -> None:
    carry(root, *FILES)
    put_bill(root, "auditwheel.cdx.json", cyclonedx(
        {"name": "libxcb", "version": "1.13.1-1.el8", "purl": "pkg:rpm/almalinux/libxcb@1.13.1-1.el8"}))
    (tmp_path / "packages").write_text("zlib1g amd64 1 zlib 1\n")
    assert bill_of(root, tmp_path, SITE) == 0
    text = (tmp_path / "image.cdx.json").read_text()
    assert faults_of(text) == []
    inside = {one["name"]: one for one in json.loads(text)["components"][1]["components"]}
    assert list(inside) == ["libxcb", "FFmpeg", "x264", "lamer"], "neither twice, nor what is in other files"
    assert inside["x264"]["version"] == X264
    assert inside["x264"]["licenses"] == [{"license": {"name": "GPL-2.0-or-later"}}]
    archive, = inside["x264"]["externalReferences"]
    assert archive["type"] == "distribution"
    lines = (tmp_path / "image.sources.txt").read_text().splitlines()
    assert lines[:2] == ["debian zlib 1", "pypi av 19.0.2"]
    assert f"carried x264 {X264} {archive['url']} (in av 19.0.2)" in lines
    assert "carried libxcb 1.13.1-1.el8 pkg:rpm/almalinux/libxcb@1.13.1-1.el8 (in av 19.0.2)" in lines
    assert len([line for line in lines if line.startswith("recipe av 19.0.2 https://")]) == 1
    carried = (tmp_path / "image.licences/python/av-19.0.2/carried.txt").read_text()
    assert f"x264 {X264}: GPL-2.0-or-later; its texts are in {archive['url']}\n" in carried


@pytest.mark.parametrize(("file", "version", "words"), [
    ("libnew-0123abcd.so.1", "19.0.2", "av 19.0.2 carries libnew, which wheel_libraries.toml does not name"),
    ("libx264-d6533a8d.so.165", "19.1", "av 19.1 carries libx264, and wheel_libraries.toml was reviewed for 19.0.2"),
])
def test_a_library_that_nobody_has_looked_at_ends_a_build(
    file: str, version: str, words: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    carry(root, file, version=version)
    (tmp_path / "packages").write_text("zlib1g amd64 1 zlib 1\n")
    assert bill_of(root, tmp_path, SITE) == 1
    assert f"bom: {words}: look at" in capsys.readouterr().err
    assert not (tmp_path / "image.cdx.json").exists()


def test_a_wheel_that_nobody_knows_ends_a_build_too(root: Path) -> None:
    with pytest.raises(wheel_libraries.NotReviewedError, match=r"does not know it"):
        wheel_libraries.carried_by(carry(root, FILES[1]), {})


def test_a_wheel_without_libraries_needs_no_review(root: Path) -> None:
    assert wheel_libraries.carried_by(carry(root, version="99"), {}) == ("", ())


@pytest.mark.parametrize("name", [
    "libscipy_openblas64_-4b78795a.so", "libvpl-e4e9cae8.so.2.16", "libxcb-shape-7716c890.so.0.0.0", "libz.so.1",
])
def test_a_library_is_known_by_its_name_up_to_a_hash(name: str, root: Path) -> None:
    stems = {"libscipy_openblas64_", "libvpl", "libxcb-shape", "libz"}
    found, = wheel_libraries.files_of(carry(root, name))
    assert found in stems
    assert name.startswith(found)


@pytest.mark.parametrize("architecture", wheels.ARCHITECTURES)
def test_what_was_reviewed_is_what_is_locked(architecture: str) -> None:
    locked = {one.name: one.version for one in wheels.read(DEB / f"wheels-{architecture}.lock")}
    reviewed = {name: wheel.version for name, wheel in wheel_libraries.read().items()}
    assert reviewed.items() <= locked.items(), "look at what the new wheels carry: wheel_libraries.toml"


def test_what_is_owed_has_an_archive_of_its_source() -> None:
    for wheel in wheel_libraries.read().values():
        for library in wheel.libraries:
            assert library.source.startswith(("https://", "pkg:")), library
            assert library.files, library
            owed = "GPL" in library.licence and "exception" not in library.licence and "BSD" not in library.licence
            assert not owed or ".tar." in library.source, library


def test_what_is_our_own_is_named_by_its_commit(root: Path, tmp_path: Path) -> None:
    """No index has it."""
    info = root / SITE / "edgecall-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: edgecall\nVersion: 0.1.0\n\n")
    (tmp_path / "packages").write_text("zlib1g amd64 1 zlib 1\n")
    assert bill_of(root, tmp_path, SITE) == 0
    lines = (tmp_path / "image.sources.txt").read_text().splitlines()
    assert lines == ["debian zlib 1", "checkout edgecall 0.1.0 5a1e-dirty", "pypi av 19.0.2"]


def test_a_root_without_the_daemon_gets_no_bill(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "packages").write_text("zlib1g amd64 1 zlib 1\n")
    (root / "empty").mkdir()
    assert bill_of(root, tmp_path, "empty") == 1
    assert "holds no Python distribution" in capsys.readouterr().err
    assert not (tmp_path / "image.cdx.json").exists()


@pytest.mark.parametrize(("metadata", "licences"), [
    ("License: MIT\n", ["MIT"]),
    ("License: " + "all rights " * 20 + "\nClassifier: License :: OSI Approved :: BSD License\n", ["BSD License"]),
    ("", []),
])
def test_a_python_licence_is_that_of_its_metadata(metadata: str, licences: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "Some_Thing-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Some_Thing\nVersion: 1\n{metadata}\n")
    component = bom.python_component(PathDistribution(folder))
    assert component["purl"] == "pkg:pypi/some-thing@1"
    assert component.get("licenses", []) == [{"license": {"name": name}} for name in licences]
