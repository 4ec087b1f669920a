"""The bill of materials of an image (CycloneDX 1.6), its licence texts, and the sources that its GPL parts demand.

Read from the root itself: what dpkg says is installed, and the metadata of the Python distributions beside it, with
what their wheels say that they carry of others (PEP 770), and what was found in them (`wheel_libraries`). Identifiers
are package URLs (purl), by which databases of vulnerabilities are asked.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from edgecall_build import wheel_libraries
from edgecall_build.lock import BadLock, Package, read
from edgecall_build.wheel_libraries import Library, NotReviewedError

__all__ = [
    "carried", "debian_component", "document", "licences_of", "main", "python_component", "python_licences", "sources",
]  # fmt: skip

Component = dict[str, object]
NAMESPACE: Final = uuid.UUID("6a5b6f7c-2f0e-5d0a-9d5c-edca11010000")
"""Under which serial numbers of bills are made: the same image has the same one."""
SAFE: Final = ".-_~:"  # what a purl does not encode, beside letters and digits
OURS: Final = "edgecall"
Carried = Mapping[str, tuple[str, Sequence[Library]]]
"""By the name of a distribution: how what it carries is built, and that."""
LICENCE_LINE: Final = re.compile(r"^License:\s*(\S.*?)\s*$", re.MULTILINE)
LICENCE_FILE: Final = re.compile(r"(licen[sc]e|copying|notice|authors)", re.IGNORECASE)


def debian_component(package: Package, release: str, licences: Sequence[str]) -> Component:
    """A Debian package as a component; `release` is Debian's number, as 13."""
    purl = (
        f"pkg:deb/debian/{quote(package.name, SAFE)}@{quote(package.version, SAFE)}"
        f"?arch={quote(package.architecture, SAFE)}&distro=debian-{release}"
    )
    source = {"name": "debian:source", "value": f"{package.source} {package.source_version}"}
    return _component(package.name, package.version, purl, licences) | {"properties": [source]}


def python_component(distribution: Distribution, libraries: Sequence[Library] = ()) -> Component:
    """A Python distribution as a component, with the licence that its metadata names, and in it what it carries."""
    purl = _python_purl(distribution)
    component = _component(distribution.name, distribution.version, purl, python_licences(distribution))
    if inside := carried(distribution, libraries):
        component["components"] = inside
    return component


def carried(distribution: Distribution, libraries: Sequence[Library] = ()) -> list[Component]:
    """What the wheel of a Python distribution holds of others, as the bills in it tell: neither itself nor what only
    built it; and these libraries, of which more is known. Raises OSError where a bill is missing; one that is none of
    CycloneDX is told of and left out."""
    own, found = _python_purl(distribution), dict[str, Component]()
    for told in _told_by(distribution):
        name, version, purl = (told.get(key) or "" for key in ("name", "version", "purl"))
        if not all(isinstance(value, str) for value in (name, version, purl)):
            continue
        purl = purl if purl.startswith("pkg:") else ""
        if name and told.get("scope") != "excluded" and re.split(r"[?#]", purl)[0] != own:
            known = purl or "@".join(filter(None, (name, version)))
            found[known] = _component(name, version, purl, _licences_told(told), f"{own}/{known}")
    for library in libraries:
        purl = library.source if library.source.startswith("pkg:") else ""
        known = purl or "@".join(filter(None, (library.name, library.version)))
        found[known] = _component(library.name, library.version, purl, [library.licence], f"{own}/{known}")
        if not purl:
            found[known]["externalReferences"] = [{"type": "distribution", "url": library.source}]
    return list(found.values())


def _told_by(distribution: Distribution) -> Iterator[dict[str, Any]]:
    for file in distribution.files or []:
        if len(file.parts) != 3 or not file.parts[0].endswith(".dist-info") or file.parts[1] != "sboms":
            continue
        try:
            bill = json.loads(Path(str(distribution.locate_file(file))).read_text(encoding="utf-8"))
        except ValueError:
            bill = None
        if isinstance(bill, dict) and bill.get("bomFormat") == "CycloneDX":
            yield from _flat(bill)
        else:
            print(f"bom: {file} is no bill of CycloneDX: what it names is left out", file=sys.stderr)


def _flat(parent: dict[str, Any]) -> Iterator[dict[str, Any]]:
    components = parent.get("components")
    for component in components if isinstance(components, list) else []:
        if isinstance(component, dict):
            yield component
            yield from _flat(component)


def _licences_told(component: dict[str, Any]) -> list[str]:
    licences = component.get("licenses")
    names = []
    for choice in licences if isinstance(licences, list) else []:
        if isinstance(choice, dict):
            licence = choice.get("license")
            one = licence if isinstance(licence, dict) else {}
            names.append(choice.get("expression") or one.get("id") or one.get("name"))
    return [name for name in names if name and isinstance(name, str)]


def _python_purl(distribution: Distribution) -> str:
    name = re.sub(r"[-_.]+", "-", distribution.name).lower()
    return f"pkg:pypi/{quote(name, SAFE)}@{quote(distribution.version, SAFE)}"


def python_licences(distribution: Distribution) -> list[str]:
    """The licences that the metadata of a Python distribution names; none where it has whole texts alone."""
    metadata = distribution.metadata
    texts = (metadata.get_all("License-Expression") or []) + (metadata.get_all("License") or [])
    named = [text for text in texts if text and "\n" not in text and len(text) < 80][:1]  # not a whole text
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    return named or [line.rsplit("::", 1)[1].strip() for line in classifiers]


def _component(name: str, version: str, purl: str, licences: Sequence[str], reference: str = "") -> Component:
    component: Component = {"type": "library", "bom-ref": reference or purl, "name": name}
    component |= {key: value for key, value in (("version", version), ("purl", purl)) if value}
    if licences:
        component["licenses"] = [{"license": {"name": licence}} for licence in licences]
    return component


def licences_of(copyright_file: Path) -> list[str]:
    """The licences that a copyright file names in Debian's machine-readable form; none where it has another form."""
    try:
        text = copyright_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return sorted(set(LICENCE_LINE.findall(text))) if text.startswith("Format:") else []


def document(name: str, version: str, components: Sequence[Component], made: datetime) -> Component:
    """The whole bill of the image `name`."""
    serial = uuid.uuid5(NAMESPACE, json.dumps([name, version, [component["bom-ref"] for component in components]]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "firmware", "bom-ref": f"{name}@{version}", "name": name, "version": version},
        },
        "components": list(components),
    }


def sources(packages: Sequence[Package], distributions: Sequence[Distribution], inside: Carried, checkout: str,
            ) -> list[str]:
    """A line for each source to keep with a release: `debian NAME VERSION`, `pypi NAME VERSION`, for what wheels carry
    `carried NAME VERSION SOURCE (in WHEEL VERSION)` and how that is built, and the checkout of what is our own."""
    debian = {f"debian {package.source} {package.source_version}" for package in packages}
    python, others = set(), set()
    for distribution in distributions:
        name, version = distribution.metadata["Name"], distribution.version
        python.add(f"checkout {name} {version} {checkout}" if name == OURS else f"pypi {name} {version}")
        recipe, libraries = inside.get(name, ("", ()))
        others |= {f"carried {library.name} {library.version or '-'} {library.source} (in {name} {version})"
                   for library in libraries}
        if recipe:
            others.add(f"recipe {name} {version} {recipe}")
    return sorted(debian) + sorted(python) + sorted(others)


def _distributions(site: Path) -> list[Distribution]:
    """Raises BadLock where there is none: a bill that leaves the daemon out would be believed."""
    found: Iterable[Distribution] = MetadataPathFinder.find_distributions(DistributionFinder.Context(path=[str(site)]))
    distributions = sorted(found, key=lambda distribution: distribution.metadata["Name"].lower())
    if not distributions:
        raise BadLock(f"{site} holds no Python distribution: is the daemon's package in this root?")
    return distributions


def _copy_licences(root: Path, packages: Sequence[Package], distributions: Sequence[Distribution], inside: Carried,
                   to: Path) -> None:
    shutil.copytree(root / "usr/share/common-licenses", to / "common-licenses")  # where copyright files refer to
    for package in packages:
        text = root / "usr/share/doc" / package.name / "copyright"
        if text.is_file():
            (to / "debian").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(text, to / "debian" / package.name)
    for distribution in distributions:
        folder = to / "python" / f"{distribution.metadata['Name']}-{distribution.version}"
        for file in distribution.files or []:
            if ".dist-info" in file.parts[0] and LICENCE_FILE.search(file.name):
                target = folder / "-".join(file.parts[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(distribution.locate_file(file)), target)
        if libraries := inside[distribution.metadata["Name"]][1]:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "carried.txt").write_text("".join(
                f"{library.name} {library.version}: {library.licence}; its texts are in {library.source}\n"
                for library in libraries), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bom", description="Writes OUT.cdx.json, OUT.sources.txt and OUT.licences/.")
    parser.add_argument("--root", type=Path, required=True, help="the root's folder")
    parser.add_argument("--packages", type=Path, required=True, help="what dpkg has there, as a lock")
    parser.add_argument("--site", type=Path, required=True, help="the folder of Python distributions, within the root")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--epoch", type=int, required=True, help="when it was made, in seconds since 1970")
    parser.add_argument("--checkout", required=True, help="the commit of what is our own")
    parser.add_argument("--out", type=Path, required=True, help="what the names of the files begin with")
    given = parser.parse_args(argv)
    site: Path = given.root / str(given.site).lstrip("/")
    try:
        packages = read(given.packages)
        distributions = _distributions(site)
        release = (given.root / "etc/debian_version").read_text(encoding="utf-8").split(".")[0].strip()
        components = [
            debian_component(package, release, licences_of(given.root / "usr/share/doc" / package.name / "copyright"))
            for package in packages
        ]
        reviewed = wheel_libraries.read()
        inside = {one.metadata["Name"]: wheel_libraries.carried_by(one, reviewed) for one in distributions}
        components += [python_component(one, inside[one.metadata["Name"]][1]) for one in distributions]
        bill = document(given.name, given.version, components, datetime.fromtimestamp(given.epoch, UTC))
        out: Path = given.out
        out.with_name(out.name + ".cdx.json").write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
        lines = sources(packages, distributions, inside, given.checkout)
        out.with_name(out.name + ".sources.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        texts = out.with_name(out.name + ".licences")
        shutil.rmtree(texts, ignore_errors=True)
        _copy_licences(given.root, packages, distributions, inside, texts)
    except (OSError, BadLock, NotReviewedError) as wrong:
        print(f"bom: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
