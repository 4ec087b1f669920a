"""The first boot file on a FAT partition: taken over whole or not at all, whatever moment the power goes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance.settings import load as load_settings
from edgecall_image.card import Card
from edgecall_image.facts import Ground, apply, load
from edgecall_image.firstfile import NAME, RESULT
from edgecall_image.provision import EMPTIED, RESULT_SIZE, Provisioning, Report
from tests.support.fat_images import write_fat
from tests.support.power import HOLDS, Hold, Power

EMPTY_RESULT = b" " * RESULT_SIZE
AUTOBOOT = b"[all]\n".ljust(512)
PARTS = 4
"""The cuts are shared out to so many tests."""
CERTIFICATE = b"the broker's authority"
GOOD = b"""
[system]
hostname = "front-door"
time_zone = "Europe/Berlin"

[network]
country = "DE"
dscp_audio = 40
[[network.wifi]]
ssid = "Office"
password = "twelve bottles"

[mqtt]
host = "broker.example.org"
tls = true
ca_file = "ca.crt"
username = "front-door"
password = "opensesame-canary"

[[http.tokens]]
name = "desk"
token = "desk-token-canary-1234"
"""
BAD = b"""
[system]
hostnam = "front-door"
[mqtt]
hosst = "broker.example.org"
keepalive_s = 1
password_file = "broker.password"
"""


def checked_by_the_daemon(path: Path) -> Sequence[str]:
    try:
        load_settings(path)
    except SettingsError as error:
        return error.faults
    return ()


class Appliance:
    """One card and one data partition; every ``boot`` is a new process's."""

    def __init__(self, folder: Path, files: dict[str, bytes] | None = None,
                 check: Callable[[Path], Sequence[str]] = checked_by_the_daemon) -> None:
        self.partition, self.data, self.run = folder / "p1", folder / "data", folder / "run"
        self.check = check
        for name in ("data/system", "run", "radios"):
            (folder / name).mkdir(parents=True)
        (self.data / "system" / "hostname").write_text("edgecall-0a1b2c\n")
        self.names: list[str] = []
        authorities = folder / "authorities.crt"
        authorities.write_bytes(b"all the world's\n")
        self.bound: list[tuple[Path, Path]] = []
        self.ground = Ground(self.data, self.run, folder / "radios", authorities, self.names.append,
                             lambda source, target: self.bound.append((source, target)))
        self.put({NAME: GOOD, "ca.crt": CERTIFICATE} if files is None else files)

    def put(self, files: dict[str, bytes]) -> None:
        """As an operator's computer leaves the partition."""
        write_fat(self.partition, {"autoboot.txt": AUTOBOOT, RESULT: EMPTY_RESULT, **files})

    def boot(self, *, lasts: bool = True) -> Report:
        """With the umask of the unit."""
        before = os.umask(0o077)
        try:
            return self._boot(lasts)
        finally:
            os.umask(before)

    def _boot(self, lasts: bool) -> Report:
        card = Card(self.partition)
        provisioning = Provisioning(card, self.ground, self.check, os.getgid(), is_board=False)
        report = provisioning.run() if lasts else provisioning.run_without_data()
        apply(load(self.data), self.ground)
        provisioning.tell(report)
        return report

    def on_card(self, name: str) -> bytes:
        content = Card(self.partition).read(name, 1 << 20)
        assert content is not None
        return content

    @property
    def result(self) -> str:
        return self.on_card(RESULT).decode()

    @property
    def settings(self) -> dict[str, dict[str, object]]:
        return tomllib.loads((self.data / "config" / "edgecall.toml").read_text())

    @property
    def is_set_up(self) -> bool:
        return (self.data / "config" / "provisioned").exists()


def test_everything_of_a_good_file_is_taken_over_and_the_daemon_reads_it(tmp_path: Path) -> None:
    one = Appliance(tmp_path)
    report = one.boot()
    assert not report.faults
    assert one.is_set_up
    read = load_settings(one.data / "config" / "edgecall.toml")
    assert (read.mqtt.host, read.mqtt.password.reveal()) == ("broker.example.org", "opensesame-canary")
    assert Path(read.mqtt.ca_file).read_bytes() == CERTIFICATE
    assert read.http.tokens[0].token.reveal() == "desk-token-canary-1234"
    assert read.network.dscp_audio == 40
    assert read.device.id == "front-door"
    assert read.board.name == "sim"
    assert (one.data / "system" / "hostname").read_text() == "front-door\n"
    assert one.names == ["front-door"]
    assert (one.data / "system" / "localtime").readlink() == Path("/usr/share/zoneinfo/Europe/Berlin")
    assert "Passphrase=twelve bottles" in (tmp_path / "radios" / "Office.psk").read_text()
    assert "Country=DE" in (one.run / "edgecall-image" / "iwd.conf").read_text()
    assert "Everything was taken over" in one.result


def test_secrets_are_off_the_card_and_closed_on_data(tmp_path: Path) -> None:
    one = Appliance(tmp_path)
    one.boot()
    raw = one.partition.read_bytes()
    for secret in (b"canary", b"twelve bottles", CERTIFICATE):
        assert secret not in raw
    assert one.on_card(NAME).startswith(EMPTIED)
    for name, mode in (("config/edgecall.toml", 0o644), ("system/hostname", 0o644), ("config", 0o755)):
        assert stat.S_IMODE((one.data / name).stat().st_mode) == mode, name
    for path in (one.run / "edgecall-image").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644, path
    for path in (one.data / "config" / "files").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert stat.S_IMODE((one.data / "config" / "system.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((one.data / "config" / "device.key").stat().st_mode) == 0o440
    assert "canary" not in one.result
    assert not list((one.data / "config" / "to-empty").iterdir())


def test_a_bad_file_changes_nothing_and_every_fault_is_told_on_the_card(tmp_path: Path) -> None:
    one = Appliance(tmp_path, {NAME: BAD, "broker.password": b"opensesame\n"})
    one.boot()
    assert not one.is_set_up
    for words in ("system.hostnam: there is no such key; did you mean hostname?", "mqtt.hosst", "Did you mean 'host'",
                  "mqtt.keepalive_s"):
        assert words in one.result
    assert one.on_card(NAME) == BAD
    assert one.settings == {"device": {"id": "edgecall-0a1b2c"}, "board": {"name": "sim"}}
    load_settings(one.data / "config" / "edgecall.toml")
    assert json.loads((one.run / "edgecall-image" / "notices.json").read_text())["faults"]
    one.put({NAME: GOOD, "ca.crt": CERTIFICATE})
    assert not one.boot().faults
    assert one.is_set_up


@pytest.mark.parametrize("content", [
    b"[mqtt\nhost = 1", b"\xff\xfe[\0", b"[system]\nhostname = 5\n", b"system = 1\nnetwork = 2\n",
    b"a = " + b"[" * 4000, b"x = 1979-13-45\n", b"[network]\nwifi = [1]\nethernet = 3\n", b"# much\n" * 10_000,
    b"[board]\nfile = \"x.toml\"",
    b"[mqtt]\nca_file = \"../../etc/passwd\"\n", b"[[mqtt]]\n", b"mqtt = \"x\"\n", b"[mqtt]\npassword = \"\"\n",
    b"[device]\nid = \"x\"\n[mqtt]\npassword = 5\n", b"[system]\nca_files = [\"ca.crt\", \"none.crt\"]\n",
    b"[mqtt]\nca_file = \"AutoBoot.txt\"\n", b"[system]\nca_files = [\"bootcode.bin\"]\n",
    b"[mqtt]\nca_file = \"edgecall.toml\"\n", b"[mqtt]\nkey_file = \"edgecall-result.txt\"\n",
    b"[mqtt]\npassword = \"a\"\npassword_file = \"b\"\n", b"[system]\ntime_zone = \"../shadow\"\n",
])
def test_nothing_that_may_stand_there_stops_a_boot(tmp_path: Path, content: bytes) -> None:
    one = Appliance(tmp_path, {NAME: content, "ca.crt": b"no certificate"})
    report = one.boot()
    assert report.faults
    assert not one.is_set_up
    assert one.on_card(NAME) == content
    assert one.on_card("autoboot.txt") == AUTOBOOT
    assert report.faults[0][:60] in one.result
    load_settings(one.data / "config" / "edgecall.toml")


def test_what_stands_where_a_file_is_named_is_not_told(tmp_path: Path) -> None:
    one = Appliance(tmp_path, {NAME: b'[mqtt]\npassword_file = "my secret canary"\n'})
    assert one.boot().faults
    assert "canary" not in one.result


@pytest.mark.parametrize("content", [None, b"", b"# nothing yet\n", EMPTIED])
def test_without_a_file_the_device_says_what_to_do_and_how_to_certify_it(tmp_path: Path, content: bytes | None) -> None:
    one = Appliance(tmp_path, {} if content is None else {NAME: content})
    one.boot()
    assert f"not set up. Write {NAME}" in one.result
    request = one.result[one.result.index("-----BEGIN") :].strip() + "\n"
    shown = subprocess.run(["openssl", "req", "-noout", "-subject", "-verify"], input=request, text=True,
                           capture_output=True, check=True)
    assert "edgecall-0a1b2c" in shown.stdout
    load_settings(one.data / "config" / "edgecall.toml")


def test_a_boot_that_has_nothing_new_writes_nothing(tmp_path: Path) -> None:
    one = Appliance(tmp_path)
    one.boot()
    one.boot()
    places = [one.partition, *(path for path in one.data.rglob("*") if path.is_file())]
    before = {place: place.stat().st_mtime_ns for place in places}
    assert one.boot().words == "This device is set up."
    assert before == {place: place.stat().st_mtime_ns for place in places}


def test_once_set_up_the_network_alone_is_read_and_the_rest_is_refused(tmp_path: Path) -> None:
    one = Appliance(tmp_path)
    one.boot()
    kept = one.settings
    one.put({NAME: b"""
[mqtt]
host = "evil.example.org"
[system]
hostname = "evil"
[network]
dscp_video = 1
[network.ethernet]
address = "192.0.2.10/24"
gateway = "192.0.2.1"
dns = ["192.0.2.1"]
"""})
    report = one.boot()
    assert set(report.refused) == {"mqtt", "system", "network.dscp_video"}
    assert one.settings == kept
    assert load(one.data).system["hostname"] == "front-door"
    text = (one.run / "systemd/network/70-edgecall-ethernet.network").read_text()
    assert "Address=192.0.2.10/24\n" in text
    assert "Gateway=192.0.2.1\n" in text
    assert not list((tmp_path / "radios").iterdir())
    assert one.on_card(NAME).startswith(EMPTIED)
    assert "Refused, since a device that is set up" in one.result
    assert json.loads((one.run / "edgecall-image" / "notices.json").read_text())["refused"]


def test_once_set_up_a_bad_network_changes_nothing(tmp_path: Path) -> None:
    one = Appliance(tmp_path)
    one.boot()
    one.put({NAME: b'[network.ethernet]\naddress = "192.0.2.10"\n'})
    assert "network.ethernet.address" in one.boot().faults[0]
    assert load(one.data).network["country"] == "DE"
    assert b"192.0.2.10" in one.on_card(NAME)


def test_the_example_is_taken_over_as_it_stands(tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / "image" / "edgecall.toml.example").read_bytes()
    one = Appliance(tmp_path, {NAME: example, "broker-ca.crt": CERTIFICATE})
    assert not one.boot().faults
    spoken_of = example.replace(b"# [", b"[").replace(b"# address", b"address").replace(b"# gateway", b"gateway")
    for key in (b"dns", b"hidden", b"time_servers", b"proxy", b"reset_button"):
        spoken_of = spoken_of.replace(b"# " + key, key)
    two = Appliance(tmp_path / "two", {NAME: spoken_of, "broker-ca.crt": CERTIFICATE})
    assert not two.boot().faults
    assert {"wifi", "ethernet", "time_servers", "proxy", "country"} == set(load(two.data).network)


def test_many_faults_leave_room_for_the_rest_of_the_result(tmp_path: Path) -> None:
    one = Appliance(tmp_path, {NAME: b"[mqtt]\n" + b"".join(b"%s = 1\n" % (b"k%d" % n * 60) for n in range(100))})
    assert len(one.boot().faults) == 100
    assert "and 84 more" in one.result
    assert "-----END CERTIFICATE REQUEST-----" in one.result


def test_own_authorities_are_trusted_by_the_system(tmp_path: Path) -> None:
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj", "/CN=own", "-keyout", "/dev/null", "-out", str(tmp_path / "own.crt")], check=True,
                   capture_output=True)
    own = (tmp_path / "own.crt").read_bytes()
    one = Appliance(tmp_path / "one", {NAME: b'[system]\nca_files = ["own.crt"]\n', "own.crt": own})
    assert not one.boot().faults
    (bundle, over), *_ = one.bound
    assert over == one.ground.authorities
    assert bundle.read_bytes() == b"all the world's\n\n" + own + b"\n"
    wrong = base64.b64encode(b"no certificate")
    two = Appliance(tmp_path / "two", {NAME: b'[system]\nca_files = ["own.crt"]\n', "own.crt": wrong})
    assert two.boot().faults == ["system.ca_files: own.crt is no certificate in PEM"]


def test_where_nothing_lasts_the_card_is_not_read_and_says_so(tmp_path: Path) -> None:
    one = Appliance(tmp_path)
    (one.run / "edgecall-image").mkdir()
    (one.run / "edgecall-image" / "no-data").write_text("/dev/mmcblk0p7\n")
    one.boot(lasts=False)
    assert one.on_card(NAME) == GOOD
    assert "data partition cannot be used" in one.result
    assert "BEGIN" not in one.result
    load_settings(one.data / "config" / "edgecall.toml")


def test_a_card_that_cannot_be_read_leaves_a_device_that_runs(tmp_path: Path) -> None:
    one = Appliance(tmp_path)
    one.partition.write_bytes(b"\0" * 65536)
    with pytest.raises(Exception, match="no FAT file system"):
        one.boot()
    load_settings(one.data / "config" / "edgecall.toml")


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_power_cut_at_any_write_of_first_boot_leaves_it_undone_or_done(tmp_path: Path, keys: Path, hold: Hold,
                                                                         part: int) -> None:
    outcomes = set()
    for cut, one in _cut_boots(tmp_path, keys, hold, part, PARTS):
        if not one.is_set_up:
            assert one.on_card(NAME) == GOOD, cut
        assert one.on_card("autoboot.txt") == AUTOBOOT, cut
        outcomes.add(one.is_set_up)
        report = one.boot()  # the power is back
        assert not report.faults, cut
        assert not report.refused, cut
        _all_is_well(one)
    assert outcomes == {False, True}


def test_a_file_changed_after_a_power_cut_is_read_and_not_emptied_unread(tmp_path: Path, keys: Path) -> None:
    changed = GOOD.replace(b"broker.example.org", b"newone.example.org")
    hosts = set()
    for cut, one in _cut_boots(tmp_path, keys, "synced", 0, 3):
        was_set_up = one.is_set_up
        one.put({NAME: changed, "ca.crt": CERTIFICATE})
        report = one.boot()
        host = one.settings["mqtt"]["host"]
        assert (host, bool(report.refused)) == (
            ("broker.example.org", True) if was_set_up else ("newone.example.org", False)), cut
        hosts.add(host)
    assert len(hosts) == 2


def _cut_boots(folder: Path, keys: Path, hold: Hold, start: int, step: int) -> Iterator[tuple[int, Appliance]]:
    """First boots whose power went at the write ``start`` and each ``step`` after it, up to one that was not cut."""
    for cut in itertools.count(start, step):
        shutil.rmtree(folder / "cut", ignore_errors=True)
        one = Appliance(folder / "cut")
        names = ("config", "config/files", "config/authorities", "config/to-empty", "system")
        places = [one.data / name for name in names]
        for place in places:  # a boot makes what is missing, and this is about files
            place.mkdir(exist_ok=True)
        for key in keys.iterdir():
            shutil.copy(key, one.data / "config")
        power = Power(one.partition, *places)
        with power.on(cut, hold):
            one.boot()
        if not power.went:
            assert cut > 50
            return
        yield cut, one


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a device made before: openssl takes its time."""
    one = Appliance(tmp_path_factory.mktemp("keys"))
    one.boot()
    folder = tmp_path_factory.mktemp("made")
    for name in ("device.key", "device.csr"):
        shutil.copy(one.data / "config" / name, folder)
    return folder


def _all_is_well(one: Appliance) -> None:
    assert one.is_set_up
    read = load_settings(one.data / "config" / "edgecall.toml")
    assert read.mqtt.password.reveal() == "opensesame-canary"
    assert read.http.tokens[0].token.reveal() == "desk-token-canary-1234"
    assert load(one.data).system["hostname"] == "front-door"
    raw = one.partition.read_bytes()
    for secret in (b"canary", b"twelve bottles", CERTIFICATE):
        assert secret not in raw
