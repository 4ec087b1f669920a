"""What is said of builds, on builds: a bill of materials, releases, equal ones, a small update, and an image for a
64-bit ARM computer that boots."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from packageurl import PackageURL

from edgecall_build import lock
from tests.image.appliance import edgecall, installing, ready, status
from tests.image.board import Board, Boot
from tests.image.conftest import Made, copy_card
from tests.image.firmware import Card
from tests.image.first_file import NAME
from tests.image.machines import Virt
from tests.image.server import Server
from tests.support.bill import faults_of

pytestmark = pytest.mark.timeout(3600)

ROOM: Final = Path(__file__).parents[2]
BUILD_S: Final = 3000.0
EMULATED_S: Final = 900.0
"""Of an emulated computer, until its daemon is up: two minutes where nothing else runs."""
WITHOUT: Final = {"clockNotSynchronised", "noMicrophoneDevicesEnumerated", "noSpeakerDevicesEnumerated"}
"""What it says of a computer that has no time server and no sound card, and nothing else."""
DAEMON_UPDATE_BYTES: Final = 40e6
SSID, PASSWORD = "Hall of doors", "open sesame, says the lamp"
WLAN: Final = "10.97.0.2/24"
FIRST_FILE: Final = f"""\
[system]
hostname = "arm-door"
[network]
country = "DE"
wifi = [{{ ssid = "{SSID}", password = "{PASSWORD}" }}]
[network.wlan]
address = "{WLAN}"
"""
LOOK: Final = """
. "$1/lib.sh"
work=$2 SOURCE_DATE_EPOCH=0
in_debian "$("$image/tools")" rauc --conf=/work/system.conf --keyring=/work/ca.pem info /work/bundle.raucb
"""


def _built(target: str, made: Made, out: Path, *words: str, version: str = "", cache: Path | None = None) -> Path:
    """The image; beside it are its root and its bundle."""
    environ = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    done = subprocess.run(
        [ROOM / "image/build", target, "--test-keys", "--version", version or made.versions["flashed"], "--min-version",
         made.versions["oldest"], "--out", out, *words],
        check=True, env=environ, stdout=subprocess.PIPE, text=True, timeout=BUILD_S)
    return Path(done.stdout.splitlines()[-1])


def test_the_bill_of_materials_is_one_by_its_schema_and_names_every_package(made: Made) -> None:
    text = made.image.with_suffix(".cdx.json").read_text()
    assert faults_of(text) == []
    components = json.loads(text)["components"]
    urls = [PackageURL.from_string(component["purl"]) for component in components]
    assert len(urls) == len(set(urls))
    assert {(url.name, url.version) for url in urls if url.type == "deb"} == {
        (package.name, package.version) for package in lock.read(made.image.with_suffix(".lock"))}
    assert {"aiortc", "av", "edgecall"} <= {url.name for url in urls if url.type == "pypi"}
    inside, = (component["components"] for component in components if component["name"] == "cryptography")
    assert any(component.get("purl", "").startswith("pkg:generic/openssl@") for component in inside)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Of a release."""
    subprocess.run([ROOM / "image/keys", tmp_path / "keys"], check=True)
    return tmp_path / "keys"


def _cloned(to: Path, reviewed: str) -> Path:
    """A checkout whose lock was reviewed to be this."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOM, to], check=True)
    (to / "image/lock/uml-amd64.lock").write_text(reviewed)
    return to


def _release(checkout: Path, keys: Path, out: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "image/build", "uml-amd64", "--keys", keys, "--version", "4.0.0", "--out", out, *words],
        check=False, capture_output=True, text=True, timeout=BUILD_S)


def test_a_release_is_not_made_of_packages_that_nobody_has_reviewed(made: Made, keys: Path, tmp_path: Path) -> None:
    found = lock.read(made.image.with_suffix(".lock"))
    other, *same = found
    reviewed = [replace(other, version="0.1"), *same]
    checkout = _cloned(tmp_path / "checkout", "".join(f"{package}\n" for package in reviewed))
    (tmp_path / "any.deb").touch()
    done = _release(checkout, keys, tmp_path / "out", "--deb", tmp_path / "any.deb")
    assert done.returncode == 1
    assert f"{other.name}:{other.architecture} 0.1 -> {other.version}" in done.stderr
    assert "a release is made of the packages that were reviewed" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.long
def test_a_release_trusts_its_own_authority_alone(made: Made, keys: Path, tmp_path: Path) -> None:
    checkout = _cloned(tmp_path / "checkout", made.image.with_suffix(".lock").read_text())
    done = _release(checkout, keys, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    image = Path(done.stdout.splitlines()[-1])
    assert image.name == "edgecall-uml-amd64-4.0.0.img", "no TEST in it"
    ours, theirs = image.with_suffix(".root.ext4"), made.image.with_suffix(".root.ext4")
    assert _file(ours, "/etc/rauc/ca.pem") == (keys / "ca.pem").read_bytes()
    for root, bundle, taken in ((ours, image.with_suffix(".raucb"), True), (ours, made.bundles["good"], False),
                                (theirs, made.bundles["good"], True), (theirs, image.with_suffix(".raucb"), False)):
        looked = _look(root, bundle, tmp_path / "look")
        assert ("Verified inline signature" in looked.stdout) == (looked.returncode == 0) == taken, looked.stdout


def _file(root: Path, name: str) -> bytes:
    """Of a file system."""
    return subprocess.run(["/usr/sbin/debugfs", "-R", f"cat {name}", root], check=True, stdout=subprocess.PIPE).stdout


def _look(root: Path, bundle: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """What RAUC says to a bundle with the configuration and the keyring of this root."""
    folder.mkdir(exist_ok=True)
    for name in ("system.conf", "ca.pem"):
        (folder / name).write_bytes(_file(root, f"/etc/rauc/{name}"))
    subprocess.run(["cp", "--reflink=auto", bundle, folder / "bundle.raucb"], check=True)
    return subprocess.run(["bash", "-euc", LOOK, "bash", ROOM / "image", folder], check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


@pytest.mark.long
def test_the_same_is_built_twice(made: Made, tmp_path: Path) -> None:
    """The second time with nothing that is kept from the first but the keys."""
    cache = tmp_path / "cache"
    ours = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    shutil.copytree(ours / "edgecall/image/test-keys", cache / "edgecall/image/test-keys")
    again = _built("uml-amd64", made, tmp_path / "out", cache=cache)
    for suffix in (".img", ".root.ext4", ".boot.vfat"):
        assert _hash(again.with_suffix(suffix)) == _hash(made.image.with_suffix(suffix)), suffix


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def another_daemon(made: Made, tmp_path: Path) -> Path:
    """A bundle, of a release in which each file of the daemon is another one."""
    changed = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOM, changed], check=True)
    for path in (changed / "appliance").rglob("*.py"):
        path.write_text(f"{path.read_text()}\n\nANOTHER_RELEASE = True\n")
    subprocess.run([changed / "image/deb/build", "amd64", "--version", "9.0.0", "--out", tmp_path], check=True,
                   timeout=BUILD_S)
    package, = tmp_path.glob("*.deb")
    return _built("uml-amd64", made, tmp_path / "out", "--deb", str(package), version="3.0.0").with_suffix(".raucb")


@pytest.mark.long
def test_an_update_of_the_daemon_alone_fetches_little(another_daemon: Path, board: Board, server: Server) -> None:
    boot = board.switch_on()
    ready(boot)
    server.take_counts()
    with installing(boot, server.url(another_daemon), "daemon-1") as until:
        until(lambda state: state["phase"] == "pending", "the update is installed", EMULATED_S)
    served = server.take_counts()
    print(f"an update of the daemon alone: {served.octets / 1e6:.1f} MB in {served.requests} requests")
    assert served.octets < DAEMON_UPDATE_BYTES


@pytest.mark.long
def test_the_image_for_arm_boots_to_a_running_daemon(made: Made, tmp_path: Path) -> None:
    """And has what the kernel of User Mode Linux lacks: swap in memory that is compressed, and radios."""
    image = _built("virt-arm64", made, tmp_path / "out")
    copy_card(image, tmp_path / "card.img")
    Card(tmp_path / "card.img").put(1, NAME, FIRST_FILE.encode())
    with Board(tmp_path / "card.img", tmp_path, Virt()) as board:
        boot = board.switch_on().wait_hello(EMULATED_S)
        ready(boot, EMULATED_S)
        assert boot.run("uname -m", EMULATED_S) == "aarch64"
        assert boot.run("hostname", EMULATED_S) == "arm-door"
        assert status(boot)["slot"] == "A"
        health = edgecall(boot, "health", seconds=EMULATED_S, check=False)
        assert set(health["causes"]) <= WITHOUT, health
        assert boot.run("swapon --show=NAME --noheadings", EMULATED_S).startswith("/dev/zram")
        _joins_a_radio_network(boot)
        with boot.follow("systemctl poweroff"):
            board.wait_off(EMULATED_S)


def _joins_a_radio_network(boot: Boot) -> None:
    """Two radios of the kernel's mac80211_hwsim, which hear each other: one is made the access point, by hand, and the
    other finds it by the first boot file alone."""
    boot.run("modprobe mac80211_hwsim radios=2", EMULATED_S)
    # udev has started iwd
    boot.run("until iwctl device wlan0 show && iwctl device wlan1 show; do sleep 1; done", EMULATED_S)
    boot.run("iwctl device wlan1 set-property Mode ap", EMULATED_S)
    boot.run(f"until iwctl ap wlan1 start '{SSID}' '{PASSWORD}'; do sleep 1; done", EMULATED_S)
    boot.run(f"until ip -4 address show dev wlan0 | grep -F 'inet {WLAN}'; do sleep 1; done", EMULATED_S)
    shown = boot.run("iwctl station wlan0 show", EMULATED_S)
    assert SSID in shown, shown
